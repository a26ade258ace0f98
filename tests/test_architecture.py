"""Imports flow one way, outside libraries stay where they belong, files stay small."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A module imports from its own group and from those before it, never from one after it.
ORDER = """
    errors units memory writers random prefetch bins messages linear drawing race exchange local columns order
    rowset parameters callers < agents checks contacts population transmission halo < shard mixing sent neighbours
    sampling scan exposure < rule < intervention < merge model grouping observe linelist trajectory periods
    infectors tracing < lineage binding < simulation < adjoint < simulate tangent outcome severed gradients audit <
    models nextgen infections explanation witness explain calibrate sensitivity neural < __init__ < testing config
    report < cli __main__ < graphs < cluster
"""
LEVEL = {name: level for level, group in enumerate(ORDER.split("<")) for name in group.split()}
FILES = {p: p.relative_to(ROOT) for top in ("gnabm", "graphs", "cluster") for p in (ROOT / top).rglob("*.py")}


def part(parts: tuple[str, ...]) -> str:
    """The entry of ORDER that a dotted name belongs to."""
    names = parts if parts[0] != "gnabm" else parts[1:]
    return names[0] if names and names[0] in LEVEL else "__init__"


def imports(path: Path) -> Iterator[tuple[int, bool, tuple[str, ...]]]:
    """Line, whether it stands in a function, and dotted name of each import of a file."""
    tree = ast.parse(path.read_text())
    inner = {
        id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, id(node) in inner, tuple(a.name.split("."))) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the import in full"
            for alias in node.names:
                yield node.lineno, id(node) in inner, (*(node.module or "").split("."), alias.name)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(FILES[p]))
def test_imports_point_downwards_and_heavy_libraries_have_one_home(path):
    where = FILES[path]
    own = part(where.with_suffix("").parts)
    named = where.parts[0] if where.parts[0] != "gnabm" else where.with_suffix("").parts[1]
    assert named in LEVEL, f"{where}: give {named} its place in ORDER"
    for line, inside, name in imports(path):
        if name[0] in ("gnabm", "graphs", "cluster"):
            composed = own == "cli" and inside  # the command line alone composes the three packages
            assert composed or LEVEL[part(name)] <= LEVEL[own], f"{where}:{line} imports {'.'.join(name)}"
        assert name[0] != "torch_scatter" or own == "messages", f"{where}:{line}: use gnabm.messages"
        assert name[0] != "ray" or own == "cluster", f"{where}:{line}: only cluster/ may import ray"


def test_no_import_cycle():
    modules = {".".join(w.with_suffix("").parts).removesuffix(".__init__"): p for p, w in FILES.items()}
    graph = {}
    for module, path in modules.items():
        names = [name for _, inside, name in imports(path) if not inside]
        graph[module] = {m for n in names for m in (".".join(n), ".".join(n[:-1])) if m in modules} - {module}
        graph[module] -= {m for m in graph[module] if f"{module}.".startswith(f"{m}.")}
    TopologicalSorter(graph).prepare()


def test_files_are_small_and_named_after_what_they_hold():
    written = [p for top in ("gnabm", "graphs", "cluster", "tests", "benchmarks") for p in (ROOT / top).rglob("*.py")]
    assert [p for p in written if p.read_text().count("\n") > 400] == []
    assert [p for p in written if p.stem in ("utils", "helpers", "util", "helper", "misc")] == []
