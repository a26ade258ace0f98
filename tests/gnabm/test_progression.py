"""The course of an infection: its tables have the bits of NumPy's, and its local score is the exact derivative."""

import numpy as np
import pytest
import torch

from gnabm import Contacts, Field, Model, Population, Stages, simulate
from gnabm.adjoint import pull_back
from gnabm.errors import DataError, UnknownFieldError
from gnabm.models.covid import ASYMPTOMATIC, COVID, HOSPITAL, OBSERVABLES, SUSCEPTIBLE, Disease
from gnabm.models.durations import Duration
from gnabm.models.epidemic import covid
from gnabm.models.immunity import RISKS, vaccinate
from gnabm.models.progression import STATE, Figures, Progress, Transition
from gnabm.parameters import Parameters
from gnabm.rule import SeedAtRandom
from gnabm.tangent import jacobian

AGES = (*(f"{a}-{a + 9}" for a in range(0, 80, 10)), "80+")
SIZE, REGIONS, STEPS, OLD = 50_000, 12, 16, (6, 7, 8)


def population(num_agents, groups, num_regions=1):
    """Nobody meets anybody; regions are batches of alike people."""
    row = np.arange(num_agents)
    columns = {
        "age_group": np.array(groups)[row % len(groups)].astype(np.uint8),
        "region": (row * num_regions // num_agents).astype(np.uint8),
    }
    fields = {
        "age_group": Field("age_group", categories=AGES),
        "region": Field("region", categories=tuple(f"r{i}" for i in range(num_regions))),
    }
    return Population(num_agents, columns, Contacts({}, num_agents), fields)


# The exact law of a covid course, by convolution of waiting times


def expected(values, num_steps, covered=0.0):
    """Deaths in all, and people on the ward at the end, per old person infected before the first step."""
    law = {}
    for name, mean in values.items():
        kind, _, which = name.rpartition(".")
        if kind == "Progress.mean_days":
            sd = values.get(f"Progress.sd_days.{which}")
            law[which] = Duration(float(mean), None if sd is None else float(sd)).pmf(1.0)
    p = {n.rpartition(".")[2]: v.numpy() for n, v in values.items() if ".probabilities." in n}
    against = float(values.get("Vaccinate.against_severe", 0.0))

    def by(*waits):
        """Probability that waits add up to at most the length of the run."""
        total = np.ones(1)
        for wait in waits:
            total = np.convolve(total, np.concatenate([[0.0], law[wait]]))
        return total[: num_steps + 1].sum()

    severe = p["severe"] * float(values["Progress.severity"]) * (1 - covered * against)
    there = severe * p["hospital"]
    way = "presymptomatic", "severe_to_hospital"
    dead = p["dead_on_ward"] * by(*way, "hospital_to_dead")
    dead = dead + p["icu"] * p["dead_in_icu"] * by(*way, "hospital_to_icu", "icu_to_dead")
    left = p["dead_on_ward"] * by(*way, "hospital_to_dead") + p["icu"] * by(*way, "hospital_to_icu")
    left = left + (1 - p["dead_on_ward"] - p["icu"]) * by(*way, "hospital_to_recovered")
    ages = list(OLD)
    return np.array([(there * dead)[ages].mean(), (there * (by(*way) - left))[ages].mean()])


def exact_derivative(values, name, covered):
    """(2,) of the two in the sum over the entries of a parameter, by differences of the exact law."""
    up, down = ({**values, name: values[name] + s * 1e-5} for s in (1, -1))
    return (expected(up, STEPS, covered) - expected(down, STEPS, covered)) / 2e-5


@pytest.fixture(scope="module")
def scores():
    """Local scores of the two outcomes in each parameter, per person, by batch: (2, num_batches, num_parameters)."""
    disease = Disease.of({}, {}, {}, severity=2.0)
    course = ASYMPTOMATIC, disease.outcomes(), disease.transitions(), disease.figures(), "severe_risk"
    protect = vaccinate({"coverage": 0.4, "against_severe": 0.5}, SUSCEPTIBLE)
    everyone = SeedAtRandom(SUSCEPTIBLE, ASYMPTOMATIC, 1.0)
    model = Model(
        [Progress(*course)],
        state={"stage": COVID, **STATE, **RISKS},
        initial=[protect, everyone, Progress(*course, name="InitialProgress")],
        observe=OBSERVABLES,
    )
    values = Parameters.of(model).select("Progress.*", "Vaccinate.against_severe").values()
    leaves = list(values.values())
    run = simulate(
        model, population(SIZE, OLD, REGIONS), steps=STEPS, seed=5, gradient="local-score", parameters=values
    )
    deaths, stages = run.observed["deaths"], run.observed["stage_count"]
    each = torch.eye(REGIONS, dtype=torch.float64)
    of_deaths = each[:, None, :, None].expand(-1, STEPS, -1, len(AGES))
    on_ward = torch.zeros(REGIONS, *stages.shape, dtype=torch.float64)
    on_ward[:, -1, HOSPITAL] = each[:, :, None]
    grads = [pull_back(deaths, of_deaths, leaves), pull_back(stages, on_ward, leaves)]
    found = (
        torch.stack([torch.stack([g.reshape(REGIONS, -1).sum(1) for g in part], 1) for part in grads]) * REGIONS / SIZE
    )
    plain = {name: value.detach().to(torch.float64) for name, value in values.items()}
    totals = [deaths.detach().sum().item() / SIZE, stages[-1, HOSPITAL].detach().sum().item() / SIZE]
    return plain, found.numpy(), totals


def test_the_exact_law_is_that_of_the_run(scores):
    values, _, (deaths, ward) = scores
    law = expected(values, STEPS, 0.4)
    assert np.array([deaths, ward]) == pytest.approx(law, abs=4 * (law.max() / SIZE) ** 0.5)


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("Progress.severity", 10),
        ("Progress.probabilities.severe", 10),
        ("Progress.probabilities.hospital", 10),
        ("Progress.probabilities.dead_on_ward", 5),
        ("Progress.mean_days.presymptomatic", 5),
        ("Progress.sd_days.presymptomatic", 1),
        ("Progress.mean_days.severe_to_hospital", 1),
        ("Progress.mean_days.hospital_to_dead", 0),
        ("Progress.mean_days.hospital_to_recovered", 0),
        ("Progress.mean_days.mild", 0),
        ("Vaccinate.against_severe", 5),
    ],
)
def test_the_local_score_of_people_who_meet_nobody_is_the_exact_derivative(scores, name, least):
    values, found, _ = scores
    exact = exact_derivative(values, name, 0.4)
    batches = found[:, :, list(values).index(name)]
    error = batches.std(1, ddof=1) / REGIONS**0.5
    assert (np.abs(batches.mean(1) - exact) <= 3 * error + 1e-12).all(), (batches.mean(1), exact, error)
    assert (np.abs(exact) >= least * error).any()  # the test has the power to see a wrong one


# Tables


def rule(probability=0.3, severity=1.0, **replaced):
    _, e, p, a, r = FAMILY
    figures = Figures(
        {"quiet": [probability] * 9, "off": [0.0, 1.0] + [0.25] * 7},
        {"wait": Duration(3.0, 1.5), "stay": Duration(2.4)},
        severity,
    )
    ways = [
        Transition(p, a, "wait", replaced.get("way", "off")), Transition(p, r, "stay"), Transition(a, r, "stay"),
    ]  # fmt: skip
    return Progress(e, [(p, None), (a, "quiet")], ways, figures)


FAMILY = Stages("S", "E", "P", "A", "R")


def small(made):
    s, e = tuple(FAMILY)[:2]
    return Model([made], state={"stage": FAMILY, **STATE}, initial=SeedAtRandom(s, e, 0.8))


def test_a_certain_way_carries_no_gradient_and_the_others_do():
    model = small(rule())
    values = Parameters.of(model).values()
    run = simulate(model, population(9_000, range(9)), steps=8, seed=2, gradient="local-score", parameters=values)
    counted = run.observed["stage_count"][-1, FAMILY.names.index("A")].sum()
    (found,) = torch.autograd.grad(counted, [values["Progress.probabilities.off"]])
    assert (found[:2] == 0).all() and (found[2:] != 0).all()


def test_the_state_of_a_run_with_scores_has_the_bits_of_a_plain_one():
    model, people = small(rule()), population(2_000, range(9))
    plain, scored = (simulate(model, people, steps=12, seed=4, gradient=g) for g in (None, "local-score"))
    for name in ("due", "next_stage"):
        assert torch.equal(getattr(plain.agents, name), getattr(scored.agents, name))
    assert torch.equal(plain.observed["stage_count"], scored.observed["stage_count"].detach().to(torch.int64))


def test_forward_mode_and_steps_made_again_give_the_same_derivatives():
    model, people = small(rule()), population(900, range(9))
    names = ["Progress.severity", "Progress.mean_days.wait", "Progress.sd_days.wait", "Progress.mean_days.stay"]
    found = []
    for checkpoint in (None, 3):
        values = Parameters.of(model).values()
        run = simulate(model, people, steps=8, seed=3, gradient="local-score", parameters=values, checkpoint=checkpoint)
        counted = run.observed["stage_count"][-1, FAMILY.names.index("A")].sum()
        found.append(torch.stack(torch.autograd.grad(counted, [values[name] for name in names])))
    assert torch.equal(*found) and (found[0] != 0).all()
    columns = jacobian(model, people, names, steps=8, seed=3)["stage_count"][-1, FAMILY.names.index("A")]
    assert columns.sum((0, 1)).tolist() == pytest.approx(found[0].tolist(), rel=1e-6)


@pytest.mark.parametrize("dt", [0.5, 1.0])
def test_other_figures_have_other_tables_and_the_old_ones_come_back(dt):
    people, made = population(2_000, range(9)), rule()
    other = rule(probability=0.9)
    model, wanted = small(made), small(other)
    before, changed = (simulate(m, people, steps=6, seed=1, dt=dt).observed["stage_count"] for m in (model, wanted))
    given = {"Progress.probabilities.quiet": torch.full((9,), 0.9, dtype=torch.float64)}
    run = simulate(model, people, steps=6, seed=1, dt=dt, parameters=given)
    assert torch.equal(run.observed["stage_count"], changed)
    assert torch.equal(simulate(model, people, steps=6, seed=1, dt=dt).observed["stage_count"], before)
    assert not torch.equal(before, changed)


def test_both_rules_of_covid_share_their_figures_under_the_name_of_the_daily_one():
    model = covid(0.1)
    names = Parameters.of(model).names
    assert "Progress.severity" in names and not [name for name in names if name.startswith("InitialProgress")]
    daily, start = model.rules()[-1], model.initial[-1]
    assert start.name == "InitialProgress" and start.severity is daily.severity


def test_probabilities_that_leave_their_range_are_refused_when_they_do():
    with pytest.raises(DataError, match=r"add up to more than 1 for some age.*lower one of them"):
        rule(probability=0.6, severity=2.0)
    model = small(rule(probability=0.6))
    with pytest.raises(DataError, match="add up to more than 1"):
        simulate(model, population(90, range(9)), steps=1, seed=1, parameters={"Progress.severity": torch.tensor(2.0)})


def test_figures_are_checked():
    with pytest.raises(UnknownFieldError, match="no figure 'of'; did you mean 'off'"):
        rule(way="of")
    with pytest.raises(DataError, match="must be 9 numbers in \\[0, 1\\]"):
        Figures({"quiet": [0.3]}, {})
    with pytest.raises(DataError, match="severity must be a finite number >= 0, got -1"):
        Figures({}, {}, -1.0)
    with pytest.raises(DataError, match="cannot be named 'half'"):
        Figures({"half": [0.5] * 9}, {})
