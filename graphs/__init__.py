"""graphs: who meets whom. Populations from published tables or your own, and the store that holds them."""

from graphs.building import build, ensure
from graphs.encounters import encounters
from graphs.fidelity import contact_matrices, summarise
from graphs.pyg import from_pyg
from graphs.sources import countries
from graphs.store import open_graph
from graphs.tables_in import from_tables, read_agents, read_edges

__all__ = [
    "build",
    "contact_matrices",
    "countries",
    "encounters",
    "ensure",
    "from_pyg",
    "from_tables",
    "open_graph",
    "read_agents",
    "read_edges",
    "summarise",
]
