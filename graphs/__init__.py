"""graphs: who meets whom. Populations from published tables or your own, and the store that holds them."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphs.building import build, ensure
    from graphs.encounters import encounters
    from graphs.fidelity import contact_matrices, summarise
    from graphs.pyg import from_pyg
    from graphs.sources import countries
    from graphs.store import open_graph
    from graphs.tables_in import from_tables, read_agents, read_edges

_HOME = {
    "building": ("build", "ensure"),
    "encounters": ("encounters",),
    "fidelity": ("contact_matrices", "summarise"),
    "pyg": ("from_pyg",),
    "sources": ("countries",),
    "store": ("open_graph",),
    "tables_in": ("from_tables", "read_agents", "read_edges"),
}

__all__ = [
    "build", "contact_matrices", "countries", "encounters", "ensure", "from_pyg", "from_tables", "open_graph",
    "read_agents", "read_edges", "summarise",
]  # fmt: skip


class _Package(ModuleType):
    """Loads a name when it is first asked for: a shard that opens a store need not wait for what builds one."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        for module, names in _HOME.items():
            if name in names:
                value = getattr(import_module(f"graphs.{module}"), name)
                self.__dict__[name] = value
                return value
        raise AttributeError(f"module 'graphs' has no attribute {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        # Importing the module graphs.encounters would hide the function of that name.
        if not (name == "encounters" and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
