"""The model that a config describes, on the population that it runs on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gnabm.config.parameters import INTERVENTIONS, in_days, model_function
from gnabm.config.schema import Config
from gnabm.errors import ConfigError, GnabmError, nearest
from gnabm.model import Model
from gnabm.models.fitting import refuse_unfit
from gnabm.models.immunity import AGE_GROUPS
from gnabm.nextgen import Encounters, transmission_rate_for
from gnabm.population import Population

Meetings = Callable[[Population], Mapping[str, Encounters]]
"""Who meets whom by layer and five-year age (`graphs.encounters`)."""


def build_model(config: Config, population: Population, encounters: Meetings | None = None) -> Model:
    """Make the model.

    Args:
        config: The config.
        population: Who it will run on; parameters by age or layer must fit it.
        encounters: Gives who meets whom by age; needed when the config states a reproduction number.

    Raises:
        ConfigError: A parameter does not fit the population.
    """
    parameters = model_parameters(config, population, encounters)
    model, run = model_function(config.model)(**parameters), config.run
    try:
        refuse_unfit(model, population, run.start, run.steps * run.dt)
    except GnabmError as error:
        own = str(error).startswith(INTERVENTIONS)
        raise type(error)(str(error) if own else f"parameters.{error}") from error
    return model


def keywords(config: Config) -> dict[str, Any]:
    """What a config says to the function of its model: parameters, and interventions in days since the start."""
    given = config.interventions
    settled = [in_days(entry, config.run.start, f"{INTERVENTIONS}[{k}]") for k, entry in enumerate(given)]
    return {**config.parameters, **({INTERVENTIONS: settled} if settled else {})}


def model_parameters(config: Config, population: Population, encounters: Meetings | None = None) -> dict[str, Any]:
    """All parameters of the model, those included that are derived from the population."""
    parameters = keywords(config)
    layers = population.contacts.layers
    for name in parameters.get("layer_weights") or {}:
        if name not in layers:
            raise ConfigError(
                f"parameters.layer_weights.{name}: the population has no such layer; {nearest(name, layers)}"
            )
    susceptibility = parameters.get("susceptibility")
    if susceptibility is not None:
        groups = population.categories("age_group")
        if groups is None:
            raise ConfigError("parameters.susceptibility is by age, but the population has no ages; add a column age")
        if groups != AGE_GROUPS:
            raise ConfigError(
                f"parameters.susceptibility is by the ten-year ages {', '.join(AGE_GROUPS)}, but age_group of the "
                f"population has {', '.join(groups) or 'no categories'}; give the agents an integer column age (in "
                "years), from which the groups are made"
            )
        if len(groups) != len(susceptibility):
            raise ConfigError(
                f"parameters.susceptibility has {len(susceptibility)} values for the {len(groups)} age groups "
                f"{', '.join(groups)}; give one value for each"
            )
    if config.reproduction_number is not None:
        parameters["transmission_rate"] = _transmission_rate(config, population, encounters)
    return parameters


def _transmission_rate(config: Config, population: Population, encounters: Meetings | None) -> float:
    """Infections per contact at which the reproduction number is the stated one."""
    assert config.reproduction_number is not None
    if encounters is None:
        raise ConfigError("a reproduction_number needs who meets whom by age; pass graphs.encounters")
    if "age" not in population.columns:
        raise ConfigError(
            "reproduction_number needs ages, which the population has not; add a column age to the agent table, or "
            "give parameters.transmission_rate to a model that needs no ages, such as epidemic.sir"
        )
    model = model_function(config.model)(**keywords(config), transmission_rate=1.0)
    if model.transmission is None:
        raise ConfigError(
            f"reproduction_number: {config.model} does not say which courses an infection takes; give "
            "parameters.transmission_rate instead"
        )
    return transmission_rate_for(config.reproduction_number, encounters(population), model.transmission, config.run.dt)
