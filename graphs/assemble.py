"""From the parts of the zones to the arrays of the country, written as they are made.

Who belongs to a place is written zone by zone of the place, who has which place row by row at the end: staff and
workers come from other zones. In between lie the national figures, sums over zones that are small: people by area and
age group, places by size, pairs of members by size and age group.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphs.activity import activity_in_setting
from graphs.age_groups import FIELD, age_group
from graphs.appending import Appender
from graphs.country import Plan
from graphs.counts import PlaceCounts
from graphs.mixing import NUM_GROUPS, activity_group, reciprocal, visit_contacts
from graphs.passes import WORKER, Residents, Workplaces
from graphs.scratch import Scratch
from graphs.sources import Country

Array = NDArray[Any]
Ints = NDArray[np.int64]
LAYERS = {"home": "home", "class": "school", "school": "school", "team": "work", "site": "work"}
"""Setting of each layer of places."""
_MADE_OF = {"school": ("class", "school"), "work": ("team", "site")}
_SEAT = np.dtype([("row", "<i4"), ("place", "<i4")])


class Assembly:
    """Writes a country as its zones arrive, in their order.

    Args:
        plan: Plan of the country.
        made: Where the arrays go.
        scratch: What one pass leaves for the next.
    """

    def __init__(self, plan: Plan, made: Appender, scratch: Scratch) -> None:
        self._plan = plan
        self._made = made
        self._scratch = scratch
        self._places = dict.fromkeys(("home", "class", "school", "team", "site", "enterprise"), 0)
        self._first: dict[str, list[int]] = {"class": [], "school": []}
        self._sectors: list[NDArray[np.uint8]] = []
        self._leaving: list[Ints] = []
        self._counts: dict[str, PlaceCounts] = {}
        self._areas = np.concatenate([np.zeros(1, np.int64), np.cumsum(plan.num_areas)])
        self._area_people = np.zeros((int(self._areas[-1]), NUM_GROUPS), np.int64)
        self._starts = np.array([plan.rows(zone)[0] for zone in range(len(plan.zones))])

    def take_residents(self, zone: int, residents: Residents) -> None:
        """Write what the first pass made of a zone."""
        for district, people in zip(self._plan.zones[zone], residents.people, strict=True):
            number = len(people.age)
            group = activity_group(people.age)
            areas = slice(int(self._areas[district]), int(self._areas[district + 1]))
            homes = np.bincount(people.home)
            start = int(self._plan.row_start[district])
            self._made.append("agents/age", people.age)
            self._made.append("agents/region", np.full(number, self._plan.region[district], np.uint8))
            self._made.append("agents/age_group", age_group(people.age))
            self._made.append("agents/area", people.area + np.int32(areas.start))
            self._made.append("layers/home/place", people.home + np.int32(self._places["home"]))
            self._made.append_sizes("layers/home/indptr", homes)
            self._made.append("layers/home/member", np.arange(start, start + number, dtype=np.int32))
            self._made.append("layers/community/group", group)
            self._places["home"] += len(homes)
            cell = people.area.astype(np.int64) * NUM_GROUPS + group
            counts = np.bincount(cell, minlength=(areas.stop - areas.start) * NUM_GROUPS)
            self._area_people[areas] = counts.reshape(-1, NUM_GROUPS)
            self._scratch.append(f"age-{zone}", people.age)
        for name, place, number in (
            ("class", residents.classes, residents.num_classes),
            ("school", residents.schools, len(residents.sector)),
        ):
            self._scratch.append(f"{name}-{zone}", place)
            self._first[name].append(self._places[name])
            self._places[name] += number
        for district, workers in zip(self._plan.zones[zone], residents.workers, strict=True):
            self._scratch.append(f"workers-{district}", workers)
        self._leaving.extend(residents.flows)
        self._sectors.append(residents.sector)
        self._made.append("layers/school/sector", residents.sector)

    def second_pass_arguments(self) -> Iterator[tuple[Any, ...]]:
        """Arguments of the second pass, zone by zone, behind the plan."""
        for zone, districts in enumerate(self._plan.zones):
            arrivals = [self._arrivals(district) for district in districts]
            place = self._scratch.read(f"class-{zone}", np.int32), self._scratch.read(f"school-{zone}", np.int32)
            age = self._scratch.read(f"age-{zone}", np.uint8)
            classes = [*self._first["class"], self._places["class"]]
            yield zone, age, place, self._sectors[zone], classes[zone + 1] - classes[zone], arrivals

    def _arrivals(self, district: int) -> list[NDArray[np.void]]:
        """Those who work in a district, by district of home."""
        flows = np.stack(self._leaving)
        before = flows[:, :district].sum(axis=1)
        return [
            self._scratch.read(f"workers-{home}", WORKER, int(first), int(number))
            for home, (first, number) in enumerate(zip(before, flows[:, district], strict=True))
        ]

    def take_workplaces(self, zone: int, made: Workplaces) -> None:
        """Write what the second pass made of a zone."""
        for name, members in made.members.items():
            self._made.append_sizes(f"layers/{name}/indptr", members.size)
            self._made.append(f"layers/{name}/member", members.rows)
            self._counts[name] = members.counts + self._counts[name] if name in self._counts else members.counts
        for name in ("team", "site"):
            size = made.members[name].size
            place = np.repeat(np.arange(len(size)), size) + self._places[name]
            self._keep(name, made.members[name].rows, place)
            self._places[name] += len(size)
        for column, name in ((1, "class"), (2, "school")):
            self._keep(f"staff-{name}", made.staff[:, 0], made.staff[:, column] + self._first[name][zone])
        self._made.append("layers/school/roll", made.roll)
        self._made.append("layers/school/region", made.school_region)
        region = np.repeat(self._plan.region[list(self._plan.zones[zone])], made.sites_of)
        self._made.append("layers/site/region", region.astype(np.uint8))
        self._made.append("layers/site/enterprise_class", made.enterprise_class)
        enterprise = made.enterprise + self._places["enterprise"]
        self._made.append("layers/site/enterprise", enterprise.astype(np.int32))
        self._places["enterprise"] += int(made.enterprise.max(initial=-1)) + 1

    def _keep(self, name: str, rows: Array, place: Ints) -> None:
        """Leave the places of these rows for the zones in which they live."""
        home = (np.searchsorted(self._starts, rows, side="right") - 1).astype(np.int16)
        order = np.argsort(home, kind="stable")
        seats = np.empty(len(rows), _SEAT)
        seats["row"], seats["place"] = rows[order], place[order]
        ends = np.cumsum(np.bincount(home, minlength=len(self._starts)))
        for zone, part in enumerate(np.split(seats, ends[:-1])):
            if len(part):
                self._scratch.append(f"{name}-of-{zone}", part)

    def finish(self) -> list[dict[str, Any]]:
        """Write what follows from the whole country.

        Returns:
            Records of the layers.
        """
        contacts, activity = self._activities()
        for zone in range(len(self._plan.zones)):
            self._place_rows(zone, activity)
        plan, counts = self._plan, self._area_people
        self._made.append("layers/community/counts", counts)
        people = counts.sum(axis=1)
        self._made.append_sizes("layers/community/area_start", people)
        self._made.append("layers/community/area_region", np.repeat(plan.region, plan.num_areas))
        matrix = reciprocal(plan.country.contacts["other"], counts.sum(axis=0))
        self._made.append("layers/community/matrix", matrix)
        return layer_records(plan.country, contacts)

    def _place_rows(self, zone: int, activity: dict[str, NDArray[np.float32]]) -> None:
        """Write the places of the people of a zone, and how active they are there."""
        first, last = self._plan.rows(zone)
        group = activity_group(self._scratch.read(f"age-{zone}", np.uint8))
        staff: Array = np.empty(0, np.int32)
        for setting, names in _MADE_OF.items():
            active = activity[setting][group]
            for name in names:
                place = np.full(last - first, -1, np.int32)
                if setting == "school":
                    pupils = self._scratch.read(f"{name}-{zone}", np.int32)
                    place = np.where(pupils >= 0, pupils + np.int32(self._first[name][zone]), np.int32(-1))
                kept = f"staff-{name}" if setting == "school" else name
                seats = self._scratch.read(f"{kept}-of-{zone}", _SEAT)
                place[seats["row"] - first] = seats["place"]
                staff = np.sort(seats["row"]) if name == "school" else staff
                self._made.append(f"layers/{name}/place", place)
                self._made.append(f"layers/{name}/activity", active)
        self._made.append("layers/school/staff", staff)

    def _activities(self) -> tuple[dict[str, float], dict[str, NDArray[np.float32]]]:
        """Contacts per visit of each layer of school and work, and the activity of each age group by setting.

        Members carry all contacts that anybody reports in the setting, made mutual on this population: contacts per
        visit meet their mean, activities by age their distribution.
        """
        everyone = self._area_people.sum(axis=0)
        country = self._plan.country
        contacts: dict[str, float] = {}
        activity: dict[str, NDArray[np.float32]] = {}
        for setting, names in _MADE_OF.items():
            target = reciprocal(country.contacts[setting], everyone)
            share = country.assumed[f"{names[0]}_share"]
            counts = [self._counts[name] for name in names]
            total = float((target.sum(axis=1) * everyone).sum())
            visits = visit_contacts(total, (share, 1 - share), [each.by_size for each in counts])
            contacts.update(zip(names, visits, strict=True))
            met = np.add(*(each.meetings(visit) for each, visit in zip(counts, visits, strict=True)))
            activity[setting] = activity_in_setting(met, everyone, target).astype(np.float32)
        return contacts, activity


def layer_records(country: Country, contacts: dict[str, float]) -> list[dict[str, Any]]:
    """What a store says of its layers, given the contacts per visit of those that have any."""
    records: list[dict[str, Any]] = [
        {"name": name, "kind": "places", "setting": where, "contacts": contacts.get(name)}
        for name, where in LAYERS.items()
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


def field_records(country: Country) -> list[dict[str, Any]]:
    """What a store says of its columns."""
    return [
        {"name": "age", "meaning": "age; 100 stands for 100 and older", "unit": "years"},
        {"name": "region", "meaning": "region of residence", "categories": list(country.regions)},
        {"name": FIELD.name, "meaning": FIELD.meaning, "categories": list(FIELD.categories or ())},
        {"name": "area", "meaning": "area of about 20,000 people (synthetic)"},
    ]
