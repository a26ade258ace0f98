"""The published tables that a country is built from, with where each comes from.

The tables stand in `graphs/tables/COUNTRY/` as small CSV files; `sources.json` beside them gives source, year
and licence of each and says which are assumed rather than measured.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gnabm.errors import ConfigError, nearest

Floats = NDArray[np.float64]

CLASSES = ("1-19", "20-49", "50+")
"""Enterprise size classes, employees."""
SECTORS = ("primary", "secondary")
"""Schools whose rolls are published."""
EDUCATION = (*SECTORS, "early childhood", "tertiary")
NUM_FIVE_YEAR = 21
"""Five-year age groups 0-4 ... 95-99, 100+."""
NUM_BANDS = 8
"""Ten-year bands of households 0-9 ... 60-69, 70+."""
MAX_AGE = 100
YEAR = 2023.0


@dataclass(frozen=True)
class Country:
    """Tables of one country as arrays; regions in the order of its region table (R of them).

    Attributes:
        name: Country.
        regions: Names of the regions.
        residents: (R,) estimated residents, people.
        households: (R,) households of the census.
        growth: (R,) residents now over residents at the census.
        age_5yr: (21,) people by five-year age.
        household_size: (S,) households of 1, 2, ... S people.
        comembers: (8, 8) mean household co-members, row = participant.
        household_checks: Name to published share of households that nothing is fitted to.
        families: Name to value of what is assumed about families and shared homes.
        living: (101, 2) assumed shares of each age: with a partner; of the rest, sharing a home.
        birth_spacing: (Y,) assumed shares of further births by years since the one before, 0 first.
        employees: (R, 3) employees by enterprise class.
        units: (R, 3) sites by enterprise class.
        commute: (R, R) shares of workers by work region, row = home.
        schools: (R, 2) number of schools by sector.
        students: (R, 2) students.
        median_roll: (R, 2) median roll, students.
        max_roll: (R, 2) largest roll, students.
        contacts: Setting to (16, 16) contacts per day, row = participant.
        employment: (101,) share of each age that is employed, in part assumed.
        enrolment: (101, 4) assumed share of each age in each sector of EDUCATION; early childhood scaled to the
            published number of children.
        early_childhood: (2,) services and children of early childhood education.
        class_size: (4,) assumed largest class of each sector.
        pupils_per_staff: (4,) assumed pupils for each who works in the sector.
        assumed: Name to value of what no table measures.
        tables: Provenance, one record per table.
        digest: Hash of the content of all tables.
    """

    name: str
    regions: tuple[str, ...]
    residents: Floats
    households: Floats
    growth: Floats
    age_5yr: Floats
    household_size: Floats
    comembers: Floats
    household_checks: dict[str, float]
    families: dict[str, float]
    living: Floats
    birth_spacing: Floats
    employees: Floats
    units: Floats
    commute: Floats
    schools: Floats
    students: Floats
    median_roll: Floats
    max_roll: Floats
    contacts: dict[str, Floats]
    employment: Floats
    enrolment: Floats
    early_childhood: Floats
    class_size: Floats
    pupils_per_staff: Floats
    assumed: dict[str, float]
    tables: tuple[dict[str, Any], ...]
    digest: str


def _folder(name: str) -> Traversable:
    return files("graphs").joinpath("tables", name.strip().lower().replace(" ", "_"))


def countries() -> tuple[str, ...]:
    """Names of the countries that have tables."""
    folders = sorted(entry.name for entry in files("graphs").joinpath("tables").iterdir() if entry.is_dir())
    return tuple(name.replace("_", " ").title() for name in folders if not name.startswith("_"))


def check_country(name: object) -> str:
    """Return the name as it is listed.

    Raises:
        ConfigError: no tables for this country; names those that exist.
    """
    for known in countries():
        if isinstance(name, str) and name.strip().lower().replace("_", " ") == known.lower():
            return known
    raise ConfigError(f"population.country: no tables for {name!r}; {nearest(str(name), countries())}")


def _by_name(table: pd.DataFrame) -> dict[str, float]:
    return {str(row["name"]): float(row["value"]) for row in table.to_dict("records")}


def _from_zero(values: pd.Series[float]) -> Floats:
    return np.asarray(values.reindex(range(int(values.index.max()) + 1), fill_value=0.0), np.float64)


def _by_age(table: pd.DataFrame, columns: list[str]) -> Floats:
    result = np.zeros((MAX_AGE + 1, len(columns)))
    for row in table.to_dict("records"):
        result[int(row["age_from"]) : int(row["age_to"]) + 1] = [row[column] for column in columns]
    return result


def _enrolment(table: pd.DataFrame, children: float, age_5yr: Floats) -> Floats:
    """(101, 4) share of each age in each sector; shares of ages 0-4 scaled so that `children` attend."""
    share = _by_age(table, [sector.replace(" ", "_") for sector in EDUCATION])
    early = EDUCATION.index("early childhood")
    share[:, early] *= children / float((share[:5, early] * age_5yr[0] / 5).sum())
    return np.asarray(np.minimum(share, 1.0))


def _age_now(table: pd.DataFrame) -> Floats:
    """People by five-year age, interpolated linearly between the two years of the table."""
    years = sorted(table["year"].unique())
    first, last = (
        table[table["year"] == year].drop(columns=["year", "sex"]).sum().to_numpy(np.float64) for year in years
    )
    weight = (YEAR - years[0]) / (years[1] - years[0])
    return np.asarray(first + weight * (last - first))


def _commute(table: pd.DataFrame, codes: list[int]) -> Floats:
    flow = (
        table.pivot_table(index="home_region", columns="work_region", values="workers", aggfunc="sum", fill_value=0)
        .reindex(index=codes, columns=codes, fill_value=0)
        .to_numpy(np.float64)
    )
    empty = flow.sum(axis=1) == 0  # a region without a row keeps its workers
    flow = flow + np.diag(empty.astype(np.float64))
    return np.asarray(flow / flow.sum(axis=1, keepdims=True))


def _schools(table: pd.DataFrame, column: str, regions: list[str]) -> Floats:
    wide = table.pivot(index="region", columns="sector", values=column)
    return wide.loc[regions, list(SECTORS)].to_numpy(np.float64)


@lru_cache(maxsize=4)
def load_country(name: str) -> Country:
    """Read the tables of a country.

    Raises:
        ConfigError: no tables for this country.
    """
    name = check_country(name)
    folder = _folder(name)
    provenance: dict[str, dict[str, Any]] = json.loads(folder.joinpath("sources.json").read_text("utf-8"))
    digest = hashlib.sha256(folder.joinpath("sources.json").read_bytes())
    frames: dict[str, pd.DataFrame] = {}
    for table in provenance:
        content = folder.joinpath(f"{table}.csv")
        digest.update(content.read_bytes())
        with content.open("r", encoding="utf-8") as stream:
            frames[table] = pd.read_csv(stream)
    region = frames["regions"]
    names = [str(entry) for entry in region["region"]]
    business = frames["business"].set_index("region").loc[names]
    prem = frames["contact_matrices"]
    early = frames["early_childhood"].iloc[0]
    education = frames["education"].set_index("sector").loc[list(EDUCATION)]
    sizes = frames["household_size"].set_index("household_size")["households"]
    return Country(
        name=name,
        regions=tuple(names),
        residents=region["erp_2023_06_30"].to_numpy(np.float64),
        households=frames["households_by_region"].set_index("region")["households"].loc[names].to_numpy(np.float64),
        growth=(region["erp_2023_06_30"] / region["erp_2018_06_30"]).to_numpy(np.float64),
        age_5yr=_age_now(frames["population_5yr"]),
        household_size=sizes.sort_index().to_numpy(np.float64),
        comembers=frames["household_comembers"].set_index("age").to_numpy(np.float64),
        household_checks=_by_name(frames["household_checks"]),
        families=_by_name(frames["household_assumptions"]),
        living=_by_age(frames["household_living"], ["partnered", "sharing"]),
        birth_spacing=frames["household_birth_spacing"].set_index("years")["share"].pipe(_from_zero),
        employees=business.iloc[:, :3].to_numpy(np.float64),
        units=business.iloc[:, 3:6].to_numpy(np.float64),
        commute=_commute(frames["commute"], [int(code) for code in region["code"]]),
        schools=_schools(frames["schools"], "schools", names),
        students=_schools(frames["schools"], "students", names),
        median_roll=_schools(frames["schools"], "median_roll", names),
        max_roll=_schools(frames["schools"], "max_roll", names),
        contacts={
            str(setting): part.iloc[:, 2:].to_numpy(np.float64) for setting, part in prem.groupby("setting", sort=False)
        },
        employment=_by_age(pd.concat([frames["employment_by_age"], frames["employment_assumed"]]), ["rate"])[:, 0],
        enrolment=_enrolment(frames["enrolment_by_age"], float(early["children"]), _age_now(frames["population_5yr"])),
        early_childhood=early.to_numpy(np.float64),
        class_size=education["class_size"].to_numpy(np.float64),
        pupils_per_staff=education["pupils_per_staff"].to_numpy(np.float64),
        assumed=_by_name(frames["assumptions"]),
        tables=tuple({"name": table, **record} for table, record in provenance.items()),
        digest=digest.hexdigest(),
    )
