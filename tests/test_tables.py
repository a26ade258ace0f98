"""Every table that is shipped says where it comes from."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("gnabm", "graphs", "cluster")
SAID = {"source": str, "licence": str, "assumed": bool, "note": str}


def faults(folder: Path) -> list[str]:
    """What a folder of tables does not say, one line each; empty when all is said."""
    tables = {path.stem for path in folder.glob("*.csv")}
    known = folder / "sources.json"
    if not known.is_file():
        return [f"{folder.name} holds {', '.join(sorted(tables))} without a sources.json"]
    records = json.loads(known.read_text("utf-8"))
    found = [f"{name}.csv has no entry" for name in sorted(tables - records.keys())]
    found += [f"{name} has an entry and no table" for name in sorted(records.keys() - tables)]
    for name, record in records.items():
        found += [f"{name} lacks {key}" for key, kind in SAID.items() if not isinstance(record.get(key), kind)]
        found += [f"{name}: {key} is empty" for key in ("source", "licence") if record.get(key) == ""]
        found += [] if isinstance(record.get("year"), int) else [f"{name} lacks its year"]
        found += [f"{name}: licence is not stated"] if "not stated" in (record.get("licence") or "") else []
        named = record.get("source", "").startswith("gnabm assumption")
        found += [f"{name}: an assumption is not flagged"] if named and not record.get("assumed") else []
    return found


def folders() -> list[Path]:
    return sorted({path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.csv")})


@pytest.mark.parametrize("folder", folders(), ids=lambda path: str(path.relative_to(ROOT)))
def test_each_table_has_source_year_licence_and_says_whether_it_is_assumed(folder):
    assert faults(folder) == []


def test_tables_of_people_and_of_diseases_are_among_those_checked():
    names = {str(path.relative_to(ROOT)) for path in folders()}
    assert {"graphs/tables/new_zealand", "gnabm/models/tables"} <= names


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"source": ""}, "a: source is empty"),
        ({"licence": None}, "a lacks licence"),
        ({"year": None}, "a lacks its year"),
        ({"assumed": "no"}, "a lacks assumed"),
        ({"source": "gnabm assumption"}, "a: an assumption is not flagged"),
    ],
)
def test_a_table_that_says_less_is_found(tmp_path, change, fault):
    whole = {"source": "Census", "year": 2018, "licence": "CC BY 4.0", "assumed": False, "note": "people"}
    (tmp_path / "a.csv").write_text("x\n1\n")
    assert faults(tmp_path) == [f"{tmp_path.name} holds a without a sources.json"]
    (tmp_path / "sources.json").write_text(json.dumps({"a": whole}))
    assert faults(tmp_path) == []
    (tmp_path / "sources.json").write_text(json.dumps({"a": whole | change}))
    assert faults(tmp_path) == [fault]
    (tmp_path / "b.csv").write_text("x\n1\n")
    assert "b.csv has no entry" in faults(tmp_path)
