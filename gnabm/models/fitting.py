"""Whether a model fits the population and the dates that it is to run on, before anything is simulated."""

from __future__ import annotations

from datetime import date

from gnabm.model import Model
from gnabm.models.immunity import Protect, refuse_other_ages
from gnabm.models.importation import Arrive
from gnabm.models.infection import InfectByAge
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
        ConfigError: A region or the ages are not there, or a date lies before the run.
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
            case InfectByAge(calendar=calendar) if calendar is not None:
                calendar.refuse_unknown(list(population.contacts.layers))
                calendar.refuse_dates(start, days)
