"""From the parts of the regions to the arrays of the country."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnabm.contacts import Places
from graphs.activity import activity_in_setting
from graphs.age_groups import FIELD, age_group
from graphs.country import Plan
from graphs.mixing import NUM_GROUPS, activity_group, reciprocal, visit_contacts
from graphs.people import People
from graphs.rounding import group_by
from graphs.schools import Membership, Schools
from graphs.sources import Country
from graphs.staff import Staff, appoint
from graphs.work import Sites

Array = NDArray[Any]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Assembled:
    """Columns, layers and their records as the store holds them."""

    columns: dict[str, Array]
    layers: dict[str, dict[str, Array]]
    layer_records: list[dict[str, Any]]
    field_records: list[dict[str, Any]]


def assemble(plan: Plan, people: list[People], schools: list[Schools], sites: list[Sites]) -> Assembled:
    """Join the regions in their order; rows of a region follow those of the one before."""
    num_agents = int(plan.region_people.sum())
    age = np.concatenate([part.age for part in people])
    region = np.repeat(np.arange(len(people), dtype=np.uint8), plan.region_people)
    areas_before = np.cumsum(plan.num_areas) - plan.num_areas
    area = np.concatenate([part.area + np.int32(first) for part, first in zip(people, areas_before, strict=True)])
    columns = {
        "age": age,
        "region": region,
        "age_group": age_group(age),
        "area": area,
    }
    layers: dict[str, dict[str, Array]] = {
        "home": _homes(people, num_agents),
        **_schools(plan, schools, sites, age),
        "team": _from_members(num_agents, [part.team_rows for part in sites], [part.team_size for part in sites]),
        "site": _from_members(num_agents, [part.rows for part in sites], [part.site_size for part in sites]),
        "community": _community(plan, age, area),
    }
    contacts = _visits(plan.country, layers, age)
    layers["site"]["enterprise_class"] = np.concatenate([part.enterprise_class for part in sites])
    layers["site"]["enterprise"] = _number_on([part.enterprise for part in sites])
    layers["site"]["region"] = np.repeat(np.arange(len(sites), dtype=np.uint8), [len(part.site_size) for part in sites])
    return Assembled(columns, layers, _records(plan.country, contacts), _fields(plan.country))


def _homes(people: list[People], num_agents: int) -> dict[str, Array]:
    counts = np.array([int(part.home[-1]) + 1 for part in people])
    before = np.cumsum(counts) - counts
    place = np.concatenate([part.home + np.int32(first) for part, first in zip(people, before, strict=True)])
    indptr, member = group_by(place, int(counts.sum()))
    return {"place": place, "indptr": indptr, "member": member}


def _schools(
    plan: Plan, schools: list[Schools], sites: list[Sites], age: NDArray[np.uint8]
) -> dict[str, dict[str, Array]]:
    """Classes and schools of the country with their staff; of schools also sector, roll, region and staff."""
    start = plan.row_start[[zone[0] for zone in plan.zones]]
    classes = _join([part.classes for part in schools], start)
    around = _join([part.schools for part in schools], start)
    sector = np.concatenate([part.sector for part in schools])
    roll = np.diff(around["indptr"])
    middle = around["member"][around["indptr"][:-1] + roll // 2]  # the pupil in the middle of the catchment
    region = (np.searchsorted(plan.row_start, middle, side="right") - 1).astype(np.uint8)
    wanted = roll / plan.country.pupils_per_staff[sector]
    first = 0
    staff: list[Staff] = []
    for zone, part in zip(plan.zones, schools, strict=True):
        own = slice(first, first + len(part.sector))
        pupils = around["member"][around["indptr"][own.start] : around["indptr"][own.stop]]
        workers = np.concatenate([sites[region].rows for region in zone])
        size = np.concatenate([sites[region].site_size for region in zone])
        staff.append(appoint(around["place"], classes["place"], pupils, wanted[own], workers, size, age))
        first = own.stop
    rows = np.concatenate([part.rows for part in staff])
    for layer, places in ((classes, [part.group for part in staff]), (around, [part.school for part in staff])):
        layer["place"][rows] = np.concatenate(places)
        layer["indptr"], layer["member"] = group_by(layer["place"], len(layer["indptr"]) - 1)
    records = {"sector": sector, "roll": roll, "region": region, "staff": np.sort(rows).astype(np.int32)}
    return {"class": classes, "school": {**around, **records}}


def _join(parts: list[Membership], row_start: Ints) -> dict[str, Array]:
    places = np.cumsum([0] + [len(part.indptr) - 1 for part in parts])
    members = np.cumsum([0] + [len(part.member) for part in parts])
    place = [
        np.where(part.place >= 0, part.place + np.int32(first), np.int32(-1))
        for part, first in zip(parts, places, strict=False)
    ]
    indptr = [part.indptr[1:] + first for part, first in zip(parts, members, strict=False)]
    member = [part.member + np.int32(first) for part, first in zip(parts, row_start, strict=True)]
    return {
        "place": np.concatenate(place),
        "indptr": np.concatenate([np.zeros(1, np.int64), *indptr]),
        "member": np.concatenate(member),
    }


def _number_on(parts: list[Ints]) -> NDArray[np.int32]:
    """Numbers that start from 0 in each region, counted on over the regions."""
    counts = np.array([int(part.max(initial=-1)) + 1 for part in parts])
    first = np.cumsum(counts) - counts
    return np.concatenate([part + before for part, before in zip(parts, first, strict=True)]).astype(np.int32)


def _from_members(num_agents: int, rows: list[Ints], sizes: list[Ints]) -> dict[str, Array]:
    size = np.concatenate(sizes)
    member = np.concatenate(rows).astype(np.int32)
    place = np.full(num_agents, -1, np.int32)
    place[member] = np.repeat(np.arange(len(size), dtype=np.int32), size)
    return {
        "place": place,
        "indptr": np.concatenate([np.zeros(1, np.int64), np.cumsum(size)]),
        "member": member,
    }


def _community(plan: Plan, age: NDArray[np.uint8], area: NDArray[np.int32]) -> dict[str, Array]:
    group = activity_group(age)
    num_areas = int(plan.num_areas.sum())
    counts = np.bincount(area.astype(np.int64) * NUM_GROUPS + group, minlength=num_areas * NUM_GROUPS)
    counts = counts.reshape(num_areas, NUM_GROUPS).astype(np.int64)
    return {
        "group": group,
        "matrix": reciprocal(plan.country.contacts["other"], counts.sum(axis=0)),
        "area_start": np.searchsorted(area, np.arange(num_areas + 1)).astype(np.int64),
        "area_region": np.repeat(np.arange(len(plan.num_areas), dtype=np.int64), plan.num_areas),
        "counts": counts,
    }


def _visits(country: Country, layers: dict[str, dict[str, Array]], age: NDArray[np.uint8]) -> dict[str, float]:
    """Give the layers of school and work an activity, and find their contacts per visit.

    Members carry all contacts that anybody reports in the setting, made mutual on this population: contacts per
    visit meet their mean, activities by age their distribution.

    Returns:
        Contacts per visit of each of these layers.
    """
    group = activity_group(age)
    everyone = np.bincount(group, minlength=NUM_GROUPS)
    contacts: dict[str, float] = {}
    for setting, names in (("school", ("class", "school")), ("work", ("team", "site"))):
        target = reciprocal(country.contacts[setting], everyone)
        share = country.assumed[f"{names[0]}_share"]
        sizes = [np.diff(layers[name]["indptr"]) for name in names]
        total = float((target.sum(axis=1) * everyone).sum())
        contacts.update(zip(names, visit_contacts(total, (share, 1 - share), sizes), strict=True))
        places = [
            Places(made["place"], made["indptr"], made["member"], contacts[name])
            for name, made in ((name, layers[name]) for name in names)
        ]
        activity = activity_in_setting(places, group, target)
        for name in names:
            layers[name]["activity"] = activity
    return contacts


def _records(country: Country, contacts: dict[str, float]) -> list[dict[str, Any]]:
    setting = {"home": "home", "class": "school", "school": "school", "team": "work", "site": "work"}
    records: list[dict[str, Any]] = [
        {"name": name, "kind": "places", "setting": where, "contacts": contacts.get(name)}
        for name, where in setting.items()
    ]
    shares = [country.assumed[f"mixing_{level}"] for level in ("local", "regional", "national")]
    dispersion = country.assumed["mixing_dispersion"]
    mixing = {
        "name": "community",
        "kind": "mixing",
        "setting": "other",
        "shares": shares,
        "dispersion": dispersion,
    }
    return [*records, mixing]


def _fields(country: Country) -> list[dict[str, Any]]:
    return [
        {"name": "age", "meaning": "age; 100 stands for 100 and older", "unit": "years"},
        {"name": "region", "meaning": "region of residence", "categories": list(country.regions)},
        {"name": FIELD.name, "meaning": FIELD.meaning, "categories": list(FIELD.categories or ())},
        {"name": "area", "meaning": "area of about 20,000 people (synthetic)"},
    ]
