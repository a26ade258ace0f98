"""Config: what a run is, as a YAML file of values, checked once at the boundary.

`load` reads a file and overrides, `Config.resolved` is what stands beside the trajectory, `build_model` makes the
model.
"""

from gnabm.config.build import build_model
from gnabm.config.load import load, shipped
from gnabm.config.schema import Config

__all__ = ["Config", "build_model", "load", "shipped"]
