"""Vaccination while the run goes on: doses, priority, and protection that comes late and wanes."""

import math
from typing import ClassVar

import numpy as np
import pytest
import torch

from gnabm import Contacts, Observable, Population, simulate
from gnabm.agents import Field
from gnabm.errors import ConfigError
from gnabm.intervention import NEVER, Schedule
from gnabm.models.campaign import CAMPAIGN, Vaccinate
from gnabm.models.epidemic import SEIR, covid, seir
from gnabm.models.immunity import AGE_GROUPS, RISKS
from gnabm.parameters import Parameters
from gnabm.testing import RuleConformance

SIZE = 18_000
BANDS = [["80+", "70-79"], ["60-69"], ["10-19"]]
GIVEN = ("vaccinated", "vaccinated_on", "infection_risk", "severe_risk")


def people():
    """As many of each ten-year age, and no contacts."""
    columns = {"key": np.arange(SIZE), "age_group": (np.arange(SIZE) % 9).astype(np.uint8)}
    fields = {"age_group": Field("age_group", "ten-year age", categories=AGE_GROUPS)}
    return Population(SIZE, columns, Contacts.from_edges([], [], num_agents=SIZE), fields)


def campaign(steps=20, gradient=None, dt=1.0, **keys):
    entry = {"vaccinate": BANDS, "per_day": 900.0, "delay": 0.0, **keys}
    model = seir(0.0, 0.1, 0.1, initial_infected=0.0, interventions=[entry])
    protected = Observable("protected", lambda before, after: 1 - after.infection_risk, by=())
    doses = Observable("doses", lambda before, after: after.vaccinated, by=("age_group",))
    model.observe = (*model.observe, protected, doses)
    return model, simulate(model, people(), steps=steps, seed=1, dt=dt, record=GIVEN, gradient=gradient)


@pytest.mark.parametrize("dt", [1.0, 0.5])
def test_the_doses_are_the_supply_and_the_first_band_comes_first(dt):
    _, run = campaign(steps=round(7 / dt), dt=dt)
    by_age = run.observed["doses"]
    daily = by_age[round(1 / dt) - 1 :: round(1 / dt)]
    # Bands of 4,000, 2,000 and 2,000: the first has its doses after 4.4 days, the second after 6.7.
    assert daily.sum(1).tolist() == pytest.approx([900.0 * (d + 1) for d in range(7)], abs=150)  # binomial
    assert daily[3][6] == 0 and daily[4][7:].sum() == 4_000 and daily[4][1] == 0
    assert daily[6][6] == 2_000 and 0 < daily[6][1] < 600
    assert by_age[-1][[0, 2, 3, 4, 5]].sum() == 0


def test_nobody_is_vaccinated_twice_and_doses_end_with_the_people():
    _, run = campaign(per_day=5_000.0)
    flags = run.fields["vaccinated"]
    assert set(np.unique(flags)) == {0.0, 1.0} and (np.diff(flags, axis=0) >= 0).all()
    assert flags[-1].sum() == 8_000


def test_a_supply_can_be_per_100_000_residents():
    entry = {"vaccinate": BANDS, "per_day_per_100k": 5_000.0}
    run = simulate(seir(0.0, 0.1, 0.1, 0.0, interventions=[entry]), people(), steps=1, seed=1, record=["vaccinated"])
    assert run.fields["vaccinated"].sum() == pytest.approx(900, rel=0.1)


def test_a_start_within_a_day_has_its_share_of_the_doses():
    _, run = campaign(start=1.75, end=3.5, steps=6)
    assert run.observed["doses"].sum(1).diff(prepend=torch.zeros(1)).tolist() == pytest.approx(
        [0, 225, 900, 450, 0, 0], rel=0.1
    )


def test_before_its_start_nothing_changes_and_other_ages_are_never_asked():
    model, run = campaign(start=3.5, steps=6)
    assert (run.fields["vaccinated_on"][:3] == NEVER).all() and (run.fields["vaccinated"][3] == 1).any()
    rule = next(rule for rule in model.rules() if isinstance(rule, Vaccinate))
    seen = []
    rule.register_forward_hook(lambda rule, given, made: seen.append((given[0].num_agents, sorted(made))))
    simulate(model, people(), steps=4, seed=1)
    assert seen[:3] == [(SIZE * 4 // 9, [])] * 3 and seen[3] == (SIZE * 4 // 9, sorted(GIVEN))


def test_protection_comes_after_its_delay_and_wanes():
    _, run = campaign(delay=2.5, waning_rate=0.1, against_infection=0.8, against_severe=0.5, per_day=9_999.0)
    someone = int(np.flatnonzero(run.fields["vaccinated_on"][-1] == 0)[0])
    infection, severe = (run.fields[name][:, someone] for name in ("infection_risk", "severe_risk"))
    since = np.arange(20) - 2.5
    lasts = np.clip(since + 1, 0, 1) * np.exp(-0.1 * np.maximum(since, 0))
    assert infection == pytest.approx(1 - 0.8 * lasts) and severe == pytest.approx(1 - 0.5 * lasts)


def test_those_infected_or_of_other_ages_get_no_dose():
    entry = {"vaccinate": [["80+"]], "per_day": 1e6}
    model = seir(0.0, 0.0, 0.0, initial_infected=0.5, interventions=[entry])
    run = simulate(model, people(), steps=1, seed=1, record=["stage", "vaccinated"])
    eligible = (run.fields["stage"][0] == 0) & (np.arange(SIZE) % 9 == 8)
    assert np.array_equal(run.fields["vaccinated"][0] == 1, eligible)


def test_protection_multiplies_with_that_of_before():
    entry = {"vaccinate": [list(AGE_GROUPS)], "per_day": 1e6, "against_infection": 0.5, "delay": 0.0}
    before = {"coverage": 0.5, "against_infection": 0.4}
    model = covid(0.0, vaccination=before, interventions=[entry])
    run = simulate(model, people(), steps=1, seed=1, record=["infection_risk"])
    assert set(np.unique(run.fields["infection_risk"]).tolist()) == {0.5, float(np.float32(0.6) * np.float32(0.5))}


def test_the_protected_have_the_exact_gradient_in_what_they_follow_from():
    steps = 4
    model, run = campaign(
        steps=steps,
        gradient="local-score",
        start=0.5,
        against_infection=0.6,
        waning_rate=0.1,
        delay=1.25,
        per_day=800.0,
    )
    values = {entry.name: entry.value for entry in Parameters.of(model)}
    names = ("supply", "against_infection", "waning_rate", "delay", "when.start")
    found = torch.autograd.grad(run.observed["protected"][-1], [values[f"Campaign.{name}"] for name in names])

    def protected(supply=800.0, against=0.6, waning=0.1, delay=1.25, start=0.5):
        doses = [supply * min(max(day + 1 - start, 0), 1) for day in range(steps)]
        since = [steps - 1 - day - delay for day in range(steps)]
        return against * sum(
            n * min(max(s + 1, 0), 1) * math.exp(-waning * max(s, 0)) for n, s in zip(doses, since, strict=True)
        )

    small = 1e-4
    keys = {"supply": 800.0, "against": 0.6, "waning": 0.1, "delay": 1.25, "start": 0.5}
    exact = [(protected(**{k: v + small}) - protected(**{k: v - small})) / (2 * small) for k, v in keys.items()]
    assert [g.item() for g in found] == pytest.approx(exact, rel=0.12)


def test_a_start_on_a_whole_day_has_the_gradient_of_the_day_on_which_there_are_doses():
    model, run = campaign(steps=4, gradient="local-score", start=2.0, against_infection=1.0)
    start = Parameters.of(model)["Campaign.when.start"].value
    (slope,) = torch.autograd.grad(run.observed["protected"][-1], start)
    assert slope.item() == pytest.approx(-900.0, rel=0.1)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"vaccinate": [["80+"], ["80+", "70-79"]]}, "age group stands in two bands"),
        ({"vaccinate": [["85+"]]}, "there is no age group '85\\+'"),
        ({"per_day_per_100k": 3.0}, "expected exactly one of per_day .* got both"),
        ({"against_infection": 1.5}, "against_infection must lie in"),
        ({"waning_rate": -0.1}, "waning_rate must be a finite number >= 0"),
        (
            {"when": {"observable": "incidence", "above": 3.0, "days": 9.0, "by_region": True}},
            "cannot be triggered by region",
        ),
    ],
)
def test_what_is_no_campaign_is_refused(keys, message):
    with pytest.raises(ConfigError, match=rf"interventions\[0\].*{message}"):
        campaign(**keys)


class TestVaccinateConformance(RuleConformance):
    """A campaign is the same in all forms of a run."""

    small = 1_000
    large = 20_000
    gradient = "local-score"
    state: ClassVar = {"stage": SEIR, **RISKS, **CAMPAIGN}

    def rule(self):
        return Vaccinate(
            "V", [[8, 7], [6, 5, 4]], 30.0, relative=False, against_infection=0.5, against_severe=0.6, delay=1.25,
            waning_rate=0.02, stages=list(SEIR)[:3], when=Schedule(0.4),
        )  # fmt: skip

    def start(self, agents, step):
        return {"stage": super().start(agents, step)["stage"]}
