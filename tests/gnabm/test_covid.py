"""The parts of the covid model: durations, courses, immunity, arrivals, calendar, refusals."""

from datetime import date

import numpy as np
import pytest
import torch
import yaml

from gnabm import Contacts, Field, Population, simulate
from gnabm.config import build_model, load
from gnabm.errors import ConfigError, GnabmError, UnknownFieldError
from gnabm.models.covid import COVID, HOSPITAL, RECOVERED, SUSCEPTIBLE, Disease
from gnabm.models.epidemic import covid
from gnabm.models.fitting import refuse_unfit
from gnabm.models.infectiousness import GammaProfile, StageFactors
from gnabm.testing import ModelConformance
from gnabm.transmission import Transmission

AGES = ("0-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70-79", "80+")
REGIONS = ("Auckland", "Nelson")
START = date(2022, 1, 20)


def population(num_agents, edges=((), ())):
    """Ages in turn; the first half lives in Auckland."""
    row = np.arange(num_agents)
    columns = {"age_group": (row % 9).astype(np.uint8), "region": (row >= num_agents // 2).astype(np.uint8)}
    fields = {
        "age_group": Field("age_group", categories=AGES), "region": Field("region", categories=REGIONS),
    }  # fmt: skip
    return Population(num_agents, columns, Contacts.from_edges(*edges, num_agents=num_agents), fields)


def start_of(num_agents=90_000, **parameters):
    return simulate(covid(0.0, **parameters), population(num_agents), steps=0, seed=1).agents


def disease(severity=1.0, **replaced):
    return Disease.of(replaced.get("probabilities", {}), replaced.get("durations", {}), {}, severity)


# Courses


def test_infectiousness_adds_up_to_one_for_any_step_and_has_the_published_moments():
    for dt in (0.1, 0.5, 1.0):
        profile = GammaProfile(5.5, 2.14)
        steps = profile.length(dt)
        sent = profile.by_steps(steps, dt) * dt
        middle = (np.arange(steps) + 0.5) * dt
        assert sent.sum() == pytest.approx(1, abs=1e-8)
        mean = (sent * middle).sum()
        assert mean == pytest.approx(5.5, abs=0.01)
        assert ((sent * middle**2).sum() - mean**2) ** 0.5 == pytest.approx(2.14, abs=0.03)
        found = profile(torch.tensor([-3, 0, 1, 2, steps, steps + 1, 9999], dtype=torch.int32), dt)
        assert (found * dt).tolist() == pytest.approx([0, 0, sent[0], sent[1], sent[-1], 0, 0])


def test_all_courses_of_an_infection_are_there_with_their_probabilities():
    courses = disease().courses(1.0)
    assert courses.probability.sum(1) == pytest.approx(np.ones(16))
    # By hand, ages 0-4: each outcome's chance to be in a stage at the start of step 6, times its factor.
    p, days = disease().probabilities, disease().durations
    sick = days["presymptomatic"].pmf(1.0)

    def ill(law):
        return sum(sick[a - 1] * law[5 - a :].sum() for a in range(1, 6))

    asymptomatic, severe, hospital = p["asymptomatic"][0], p["severe"][0], p["hospital"][0]
    mild = 1 - asymptomatic - severe
    early = 0.05 * (mild + severe) * sick[5:].sum()
    late = 0.72 * mild * ill(days["mild"].pmf(1.0))
    bad = severe * (
        hospital * ill(days["severe_to_hospital"].pmf(1.0)) + (1 - hospital) * ill(days["severe_to_recovered"].pmf(1.0))
    )
    quiet = 0.33 * asymptomatic * days["asymptomatic"].pmf(1.0)[5:].sum()
    sent = GammaProfile(5.5, 2.14).by_steps(6, 1.0)[5]
    assert courses.mean[0, 5] == pytest.approx(sent * (quiet + early + late + bad), rel=1e-9)


def test_the_reproduction_number_hardly_depends_on_the_length_of_a_step():
    found = [disease().courses(dt).mean.sum(1) * dt for dt in (1.0, 0.5, 0.1)]
    assert found[0] == pytest.approx(found[2], rel=2e-3)
    assert found[1] == pytest.approx(found[2], rel=5e-4)


def test_a_generation_interval_is_a_distribution():
    interval = Transmission(disease().courses).generation_interval(1.0)
    assert interval.sum() == pytest.approx(1)
    assert 6 < (interval * np.arange(1, interval.size + 1)).sum() < 7


def test_factors_of_stages_are_the_same_in_a_forward_and_in_a_differentiable_run():
    stage = start_of(900, prior_infection={"share": 0.5}).stage
    factors = StageFactors({SUSCEPTIBLE: 0.3, RECOVERED: 0.7})
    assert torch.equal(factors(stage), factors(stage.with_flags(torch.float32)))


# Immunity


def test_vaccinated_people_carry_their_protection():
    agents = start_of(vaccination={"coverage": 0.75, "against_infection": 0.25, "against_severe": 0.5})
    assert agents.infection_risk.unique().tolist() == [0.75, 1.0]
    assert torch.equal(agents.infection_risk < 1, agents.severe_risk < 1)
    assert float((agents.severe_risk == 0.5).float().mean()) == pytest.approx(0.75, abs=0.01)


def test_coverage_goes_by_age_and_region():
    by_age = [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    agents = start_of(900, vaccination={"coverage": {"Nelson": by_age, "elsewhere": 0.0}, "against_infection": 1.0})
    expected = (agents.region == 1) & (agents.age_group % 2 == 1)
    assert torch.equal(agents.infection_risk == 0, expected)


def test_prior_infections_recover_or_are_protected_in_part():
    recovered = start_of(prior_infection={"share": 0.2}).stage.is_(RECOVERED)
    assert float(recovered.float().mean()) == pytest.approx(0.2, abs=0.01)
    agents = start_of(prior_infection={"share": 0.2, "against_infection": 0.5})
    assert not bool(agents.stage.is_(RECOVERED).any())
    assert float((agents.infection_risk == 0.5).float().mean()) == pytest.approx(0.2, abs=0.01)


def test_protections_multiply():
    parts = {"against_infection": 0.5, "against_severe": 0.75}
    agents = start_of(900, vaccination={"coverage": 1.0, **parts}, prior_infection={"share": 1.0, **parts})
    assert agents.infection_risk.unique().tolist() == [0.25]
    assert agents.severe_risk.unique().tolist() == [0.0625]


def test_those_infected_at_the_start_were_vaccinated_but_had_no_prior_infection():
    half = {"share": 1.0, "against_infection": 0.5, "against_severe": 0.5}
    agents = start_of(initial_infected=0.1, vaccination={"coverage": 0.6, "against_severe": 0.2}, prior_infection=half)
    infected = ~agents.stage.is_(SUSCEPTIBLE)
    assert float(infected.float().mean()) == pytest.approx(0.1, abs=0.005)
    assert set(agents.infection_risk[infected].tolist()) == {1.0}
    assert float((agents.severe_risk[infected] < 0.9).float().mean()) == pytest.approx(0.6, abs=0.025)
    assert set(agents.infection_risk[~infected].tolist()) == {0.5}


def test_without_immunity_there_are_no_fields_for_it():
    assert "infection_risk" not in start_of(90)


# Arrivals


def arrivals(steps, num_agents=18_000, dt=1.0, seed=1, **parameters):
    observed = simulate(
        covid(0.0, **parameters), population(num_agents), steps=steps, seed=seed, dt=dt, start=START
    ).observed["incidence"]
    return observed.sum(2)


def test_a_seeding_infects_on_its_day_in_its_region():
    found = arrivals(5, seeding=[{"number": 400, "day": "2022-01-22", "region": "Nelson"}])
    assert found[:, 0].sum() == 0 and found[[0, 1, 3, 4]].sum() == 0
    assert abs(int(found[2, 1]) - 400) < 4 * 20
    assert torch.equal(found, arrivals(5, seeding=[{"number": 400, "day": 2, "region": "Nelson"}]))


@pytest.mark.parametrize("dt", [0.5, 1.0, 2.0])
def test_importation_brings_its_number_every_day_whatever_the_step(dt):
    entries = [{"per_day": 100, "from": "2022-01-24", "to": "2022-02-02"}, {"per_day": 50, "region": "Auckland"}]
    found = arrivals(int(20 / dt), dt=dt, importation=entries).double()
    by_day = found.sum(1).reshape(10, -1).sum(1)  # by two days
    expected = torch.tensor([100, 100, 300, 300, 300, 300, 300, 100, 100, 100]).double()
    assert (abs(by_day - expected) < 4.5 * expected.sqrt()).all(), by_day
    assert abs(found[:, 1].sum() - 500) < 4.5 * 500**0.5


def test_nobody_arrives_where_everybody_was_infected():
    assert arrivals(3, 90, initial_infected=1.0, importation=[{"per_day": 5}]).sum() == 0


@pytest.mark.parametrize("num_agents", [9_000, 90_000])
def test_arrivals_per_100_000_residents_mean_the_same_in_any_population(num_agents):
    relative = {
        "seeding": [{"per_100k": 4_000, "region": "Nelson"}], "importation": [{"per_day_per_100k": 2_000, "from": 2}],
    }  # fmt: skip
    absolute = {
        "seeding": [{"number": 0.02 * num_agents, "region": "Nelson"}],
        "importation": [{"per_day": 0.02 * num_agents, "from": 2}],
    }
    found = arrivals(4, num_agents, **relative)
    assert torch.equal(found, arrivals(4, num_agents, **absolute))
    assert abs(found.sum() - 0.06 * num_agents) < 4 * (0.06 * num_agents) ** 0.5


def test_arrivals_fall_on_people_by_their_risk_and_keep_their_number():
    half = {"coverage": {"Nelson": [1.0, 0.0] * 4 + [1.0], "elsewhere": 0.0}, "against_infection": 0.75}
    model = covid(0.0, seeding=[{"number": 6000}], importation=[{"per_day": 100, "from": 1}], vaccination=half)
    agents = simulate(model, population(90_000), steps=11, seed=3, start=START).agents
    infected = agents.infected_on >= 0
    assert abs(int(infected.sum()) - 7000) < 4 * 7000**0.5
    guarded = agents.infection_risk == 0.25
    ratio = infected[guarded].float().mean() / infected[~guarded].float().mean()
    assert float(ratio) == pytest.approx(0.25, abs=4 * 0.25 * (1 / 470 + 1 / 6500) ** 0.5)


def test_the_fully_immune_are_not_infected_from_outside():
    immune = {"coverage": 1.0, "against_infection": 1.0}
    # An importation finds nobody; a seeding that cannot be says so.
    assert arrivals(3, 90, vaccination=immune, importation=[{"per_day": 5}]).sum() == 0
    with pytest.raises(
        ConfigError, match=r"seeding\[0\]: 5 infections .* has 0 susceptible people, each counted by its"
    ):
        arrivals(3, 90, vaccination=immune, seeding=[{"number": 5}])
    # At a risk of a quarter 9,000 people are as 2,250: an importation of more brings no more than that at once.
    most = {"coverage": 1.0, "against_infection": 0.75}
    found = int(arrivals(1, 9_000, vaccination=most, importation=[{"per_day": 5_000}]).sum())
    assert abs(found - 2250) < 4 * 2250**0.5


# Refusals


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"seeding": [{"number": 3, "region": "Aukland"}]}, r"seeding\[0\]: .*'Aukland'; did you mean 'Auckland'"),
        ({"seeding": [{"number": 3, "day": "2022-01-19"}]}, r"seeding\[0\]: 2022-01-19 lies before the run"),
        ({"seeding": [{"number": 3, "day": -1}]}, r"seeding\[0\].day: -1 lies before the run"),
        ({"seeding": [{"number": 3, "day": "soon"}]}, r"seeding\[0\].day: expected a date such as 2022-01-20"),
        ({"seeding": [{"number": 500}]}, r"seeding\[0\]: 500 infections .* 90 susceptible people; lower the number"),
        ({"seeding": [{"per_100k": 2e5}]}, r"seeding\[0\]: 180 infections .* 90 susceptible people; lower the number"),
        ({"seeding": [{"number": 3, "per_100k": 3}]}, r"seeding\[0\]: .* one of number .* and per_100k .* got both"),
        ({"importation": [{"from": 3}]}, r"importation\[0\]: .* one of per_day .* and per_day_per_100k .* got neither"),
        ({"importation": [{"per_day": -2.0}]}, r"importation\[0\]: .* must be finite and >= 0"),
        ({"importation": [{"per_day": 1, "from": 5, "to": 3}]}, r"importation\[0\]: ends \(3\) before it begins"),
        ({"vaccination": {"coverage": 1.2}}, r"vaccination.coverage must lie in \[0, 1\]"),
        ({"vaccination": {"coverage": [0.5] * 8}}, "vaccination.coverage has 8 values; give one number, or nine"),
        ({"vaccination": {"coverage": {"Nelsen": 1, "elsewhere": 0}}}, "vaccination.coverage.Nelsen.*'Nelson'"),
        ({"vaccination": {"coverage": {"Nelson": 1}}}, "says nothing of Auckland"),
        ({"prior_infection": {"share": 0.1, "against_severe": 2}}, r"prior_infection.against_severe must lie in"),
        ({"calendar": {"weekly": {"clas": [1] * 7}}}, "calendar.weekly.clas: there is no such layer"),
        ({"calendar": {"weekly": {"contacts": [1] * 6}}}, "calendar.weekly.contacts: expected seven numbers"),
        ({"calendar": {"closed_in_holidays": ["contacts"]}}, "give both or neither"),
        ({"calendar": {"closed_in_holidays": ["contacts"], "school_terms": "Norway"}}, "no school terms of 'Norway'"),
        ({"susceptibility": [1.0, -1.0]}, "susceptibility must be a list of finite numbers >= 0"),
        ({"severity": 9.0}, "add up to .* more than 1; lower one of them, or severity"),
        ({"probabilities": {"icuu": [0.1] * 9}}, "probabilities.icuu: no such key; did you mean 'icu'"),
        ({"probabilities": {"icu": [0.1] * 8}}, "probabilities.icu: expected 9 numbers"),
        ({"durations": {"mild": [1, 2, 3]}}, r"durations.mild: expected \[mean\]"),
        ({"infectiousness": {"severe": float("nan")}}, "infectiousness.severe: expected a finite number"),
        ({"layer_weights": {"contacts": -1.0}}, "layer_weights.contacts must be a finite number >= 0"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_key_and_the_cure(parameters, message):
    with pytest.raises(GnabmError, match=message):
        simulate(covid(0.1, **parameters), population(90), steps=6, seed=1, start=START)


def test_dates_need_a_run_with_dates():
    with pytest.raises(ConfigError, match="this run has no dates"):
        simulate(covid(0.1, calendar={"weekly": {"contacts": [1] * 7}}), population(90), steps=1, seed=1)
    with pytest.raises(ConfigError, match="2022-02-01 is a date, but this run has none"):
        simulate(covid(0.1, seeding=[{"number": 1, "day": "2022-02-01"}]), population(90), steps=1, seed=1)


def test_a_year_without_known_terms_is_refused():
    calendar = {"closed_in_holidays": ["contacts"], "school_terms": "New Zealand"}
    with pytest.raises(ConfigError, match="known for 2022 to 2023, not for 2024-01-01"):
        simulate(covid(0.1, calendar=calendar), population(90), steps=1, seed=1, start=date(2024, 1, 1))


def test_a_population_without_ages_is_refused():
    with pytest.raises(ConfigError, match="needs the ten-year age groups"):
        simulate(covid(0.1), Contacts.from_edges([], [], num_agents=5), steps=1, seed=1)
    with pytest.raises(UnknownFieldError, match="layer"):
        simulate(covid(0.1, layer_weights={"clas": 1.0}), population(90), steps=1, seed=1)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"seeding": [{"number": 3, "day": "2022-01-19"}]}, r"seeding\[0\]: 2022-01-19 lies before the run"),
        ({"importation": [{"per_day": 1, "from": 9, "to": 8}]}, r"importation\[0\]: ends \(8\) before it begins"),
        ({"importation": [{"per_day": 1, "to": "2022-01-01"}]}, r"importation\[0\]: 2022-01-01 lies before the run"),
        ({"seeding": [{"number": 3, "region": "Otago"}]}, r"seeding\[0\]: there is no region 'Otago'"),
        ({"vaccination": {"coverage": {"Otago": 1, "elsewhere": 0}}}, "vaccination.coverage.Otago"),
        ({"calendar": {"weekly": {"clas": [1] * 7}}}, "calendar.weekly.clas: there is no such layer"),
    ],
)
def test_what_is_not_there_is_found_before_a_run(parameters, message):
    with pytest.raises(GnabmError, match=message):
        refuse_unfit(covid(0.1, **parameters), population(90), START, 6.0)


def test_what_begins_after_the_end_of_a_run_does_not_happen():
    later = {"seeding": [{"number": 3, "day": 6}], "importation": [{"per_day": 1, "from": "2023-01-01"}]}
    refuse_unfit(covid(0.1, **later), population(90), START, 6.0)
    assert arrivals(6, 90, **later).sum() == 0


def test_a_run_longer_than_the_known_terms_is_found_before_it_begins():
    model = covid(0.1, calendar={"closed_in_holidays": ["contacts"], "school_terms": "New Zealand"})
    refuse_unfit(model, population(90), START, 711.0)
    with pytest.raises(ConfigError, match="not for 2024-01-01"):
        refuse_unfit(model, population(90), START, 712.0)
    with pytest.raises(ConfigError, match="this run has no dates"):
        refuse_unfit(model, population(90), None, 6.0)


# Config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seeding=[{number: 3, dya: 1}]", r"parameters.seeding\[0\].dya: no such key; did you mean 'day'"),
        ("seeding=[{day: 1}]", r"seeding\[0\]: expected exactly one of number"),
        ("seeding=3", "parameters.seeding: expected a list of mappings with keys number, per_100k, day, region"),
        ("prior_infection=[1]", "parameters.prior_infection: expected a mapping with keys share, against_infection"),
        ("prior_infection={share: x}", "parameters.prior_infection.share: expected a number"),
        ("calendar.average_day=3", "parameters.calendar.average_day: expected true or false, got 3"),
        ("vaccination.coverage=[1, 2]", "vaccination.coverage has 2 values; give one number, or nine"),
    ],
)
def test_nested_keys_of_a_config_are_checked(override, message):
    with pytest.raises(ConfigError, match=message):
        load("new_zealand", [f"parameters.{override}"])


def test_what_a_population_has_not_is_refused_when_the_model_is_built():
    keys = ["parameters={transmission_rate: 0.1, seeding: [{number: 2, region: Otago}]}", "reproduction_number=null"]
    with pytest.raises(ConfigError, match=r"parameters.seeding\[0\]: there is no region 'Otago'"):
        build_model(load("new_zealand", keys), population(90))


def test_nested_values_are_plain_and_load_again(tmp_path):
    config = load("new_zealand", ["parameters.importation=[{from: 2022-03-01, to: 40, per_day: 2 per day}]"])
    assert config.parameters["importation"] == [{"from": "2022-03-01", "to": 40, "per_day": 2.0}]
    path = tmp_path / "new_zealand.yaml"
    path.write_text(yaml.safe_dump(config.resolved()))
    assert load(path) == config


# Promises


class TestConformance(ModelConformance):
    """Shards, threads, forms and gradients, with all of it on; without a calendar, for these runs have no dates."""

    large = 20_000
    steps = 5

    def model(self):
        return covid(
            1.5, initial_infected=0.05, seeding=[{"number": 30, "day": 2, "region": "middle"}],
            importation=[{"per_day": 5.0, "from": 1}], layer_weights={"site": 0.5},
            vaccination={"coverage": {"north": 0.9, "elsewhere": 0.5}, "against_infection": 0.5, "against_severe": 0.8},
            prior_infection={"share": 0.1},
            durations={"presymptomatic": [1.5, 0.5], "severe_to_hospital": [1.2], "hospital_to_icu": [1.0]},
        )  # fmt: skip


def test_hospital_is_a_stage_of_the_family():
    assert COVID.names[int(HOSPITAL)] == "hospital"
