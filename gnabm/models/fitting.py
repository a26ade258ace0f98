"""Whether a model fits the population and the dates that it is to run on, before anything is simulated."""

from __future__ import annotations

from datetime import date

from gnabm.model import Model
from gnabm.models.immunity import Protect
from gnabm.models.importation import Arrive
from gnabm.models.infection import InfectByAge
from gnabm.population import Population


def refuse_unfit(model: Model, population: Population, start: date | None, days: float) -> None:
    """Refuse regions, layers and days that the rules of a model name and that are not there.

    The rules find most of it out themselves, but a day after the end never comes.

    Args:
        model: The model.
        population: Who it will run on.
        start: Date of the first step, or None.
        days: Length of the run.

    Raises:
        ConfigError: A region or a day is not there.
        UnknownFieldError: A layer is not there.
    """
    for rule in (*model.initial, *model.rules()):
        match rule:
            case Arrive():
                rule.regions(population.fields)
                for arrivals in rule.arrivals:
                    arrivals.refuse_outside(start, days)
            case Protect():
                rule.table(population.fields)
            case InfectByAge(calendar=calendar) if calendar is not None:
                calendar.refuse_unknown(list(population.contacts.layers))
                calendar.refuse_dates(start, days)
