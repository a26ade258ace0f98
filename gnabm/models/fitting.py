"""Whether a model fits the population and the dates that it is to run on, before anything is simulated."""

from __future__ import annotations

from datetime import date

from gnabm.errors import ConfigError
from gnabm.intervention import Watch
from gnabm.model import Model
from gnabm.models.campaign import Vaccinate
from gnabm.models.immunity import Protect, refuse_other_ages, region_names
from gnabm.models.importation import Arrive
from gnabm.models.infection import HOME, Closure, InfectByAge
from gnabm.models.progression import Progress
from gnabm.population import Population


def refuse_unfit(model: Model, population: Population, start: date | None, days: float) -> None:
    """Refuse regions, layers and dates that the rules of a model name and that are not there.

    The rules find it out themselves, but some of it only after days of a run. Arrivals that begin after the end of a
    run just do not happen.

    Args:
        model: The model.
        population: Who it will run on.
        start: Date of the first step, or None.
        days: Length of the run.

    Raises:
        ConfigError: A region, the ages or the homes of those who isolate are not there, or a date lies before the run.
        UnknownFieldError: A layer is not there.
    """
    for rule in (*model.initial, *model.rules()):
        match rule:
            case Arrive():
                rule.regions(population.fields)
                for arrivals in rule.arrivals:
                    arrivals.days(start)
            case Protect():
                rule.table(population.fields)
            case Progress():
                refuse_other_ages(population.fields if "age_group" in population.columns else {})
            case Vaccinate():
                refuse_other_ages(population.fields if "age_group" in population.columns else {})
            case Watch(by_region=True):
                region_names(population.fields, rule.key)
            case InfectByAge():
                _refuse_unfit(rule, population, start, days)


def _refuse_unfit(rule: InfectByAge, population: Population, start: date | None, days: float) -> None:
    """The same for one rule that infects."""
    layers = list(population.contacts.layers)
    if rule.calendar is not None:
        rule.calendar.refuse_unknown(layers)
        rule.calendar.refuse_dates(start, days)
    if rule.outside and HOME not in layers:
        raise ConfigError(
            f"interventions: those who isolate meet others in the layer {HOME!r} alone, and the layers of this "
            f"population are {', '.join(layers)}; call the one of their households {HOME!r}, or leave isolation and "
            "tests out"
        )
    for name, closure in rule.closures.items():
        assert isinstance(closure, Closure)
        closure.refuse_unknown(name, layers, population.fields)
    if rule.rate_by_region is not None:
        names, number = region_names(population.fields, "rate_by_region"), rule.rate_by_region.shape[0]
        if number != len(names):
            raise ConfigError(f"rate_by_region has {number} values for {len(names)} regions: {', '.join(names)}")
