"""Checks of contact layers held in memory: kernels take rows on trust, so a bad row must not reach them.

Each check runs over whole arrays and reads them once. Layers read lazily from a store are trusted: a graph store is
written from checked layers, and reading all of it would undo that a shard reads only its own blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from gnabm.errors import DataError, KindError, ShapeError

_FROM_EDGES = "build the layer with Contacts.from_edges, which sorts"
_FROM_PLACES = "build the layer with Places.of(place), which derives both"


def as_array(value: ArrayLike | torch.Tensor, name: str) -> NDArray[Any]:
    """NumPy view of an array, tensor or list."""
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if array.ndim != 1:
        raise ShapeError(f"{name} must be one-dimensional, got shape {array.shape}")
    return array


def as_rows(value: ArrayLike | torch.Tensor, name: str, num_agents: int) -> NDArray[np.int64]:
    """Integer ids of agents within 0..num_agents-1."""
    array = as_array(value, name)
    if array.size and array.dtype.kind not in "iu":
        raise KindError(
            f"{name} must hold integer ids of agents, got {array.dtype}; map names to 0..num_agents-1 first"
        )
    bad = np.flatnonzero((array < 0) | (array >= num_agents))
    if bad.size:
        raise DataError(
            f"{name}[{bad[0]}] is {array[bad[0]]}, outside 0..{num_agents - 1} ({bad.size} such ids); "
            "raise num_agents or renumber the agents"
        )
    return array.astype(np.int64)


def as_weights(value: ArrayLike | torch.Tensor) -> NDArray[np.float32]:
    """Edge weights: numbers without a gradient."""
    if isinstance(value, torch.Tensor) and value.requires_grad:
        raise KindError(
            "weight asks for a gradient, but edge weights are data and carry none; multiply the hazard by a parameter, "
            "or give the layer a factor in layer_weights, and pass weight.detach() here"
        )
    return as_numbers(value, "weight")


def as_numbers(value: ArrayLike | torch.Tensor, name: str) -> NDArray[np.float32]:
    """Numbers as float32."""
    array = as_array(value, name)
    if array.size and array.dtype.kind not in "iuf":
        raise KindError(f"{name} must hold numbers, got {array.dtype}; leave it out for 1")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused as such
        return array.astype(np.float32)


def check_array(where: str, value: object) -> None:
    """Refuse what is no one-dimensional array, and tensors, of which the checks would see nothing.

    Args:
        where: Layer and name of the array, for the message.
        value: A NumPy or Zarr array.

    Raises:
        KindError: It is no array.
        ShapeError: It has not one dimension.
    """
    if isinstance(value, torch.Tensor) or not (hasattr(value, "shape") and hasattr(value, "dtype")):
        raise KindError(f"{where} must be a NumPy or Zarr array, got {type(value).__name__}; convert it to NumPy")
    if len(value.shape) != 1:
        raise ShapeError(f"{where} must be one-dimensional, got shape {tuple(value.shape)}")


def check_edges(where: str, indptr: Any, source: Any, weight: Any) -> None:  # noqa: ANN401
    """Check directed edges by target.

    Args:
        where: Name of the layer, for the message.
        indptr: (num_agents + 1,) first in-edge of each target.
        source: (num_edges,) source rows.
        weight: (num_edges,) contacts per day, or None.

    Raises:
        DataError: An offset, row or weight is out of range, sources do not ascend, or an agent is its own source.
        KindError: Rows are no integers or weights no numbers.
        ShapeError: source and weight differ in length.
    """
    if weight is not None and weight.shape != source.shape:
        raise ShapeError(f"{where}: weight has {weight.shape[0]} entries for {source.shape[0]} edges; give one each")
    if isinstance(weight, np.ndarray):
        _check_weight(where, weight)
    if not isinstance(indptr, np.ndarray):
        return
    _check_indptr(where, indptr, source.shape[0], "edges")
    if not isinstance(source, np.ndarray):
        return
    num_agents = indptr.size - 1
    _check_rows(where, "source", source, num_agents)
    at = _first_descent(source, indptr)
    if at is not None:
        raise DataError(
            f"{where}: source[{at}] is {source[at]} after {source[at - 1]} within one target; the sources of a target "
            f"must ascend without repeats; {_FROM_EDGES}"
        )
    row = np.arange(num_agents, dtype=np.int32 if num_agents < 2**31 else np.int64)
    own = source == np.repeat(row, np.diff(indptr))
    if own.any():
        at = int(own.argmax())
        raise DataError(
            f"{where}: source[{at}] is a self-loop of agent {source[at]}; drop it, an agent is no contact of itself"
        )


def check_pairs(source: NDArray[np.int64], target: NDArray[np.int64], weight: NDArray[np.float32] | None) -> None:
    """Check edges given as pairs, in any order, whose ids are in range.

    Args:
        source: (num_edges,) senders.
        target: (num_edges,) receivers.
        weight: (num_edges,) contacts per day, or None.

    Raises:
        DataError: An edge is a self-loop, or a weight is NaN, infinite or negative.
    """
    loops = np.flatnonzero(source == target)
    if loops.size:
        raise DataError(
            f"edge {loops[0]} is a self-loop of agent {source[loops[0]]} ({loops.size} in all); drop them, an agent is "
            "no contact of itself"
        )
    if weight is not None:
        bad = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
        if bad.size:
            raise DataError(
                f"weight[{bad[0]}] is {weight[bad[0]]} ({bad.size} such weights); weights are contacts per day, finite "
                "and >= 0"
            )


def check_places(
    where: str,
    place: Any,  # noqa: ANN401
    indptr: Any,  # noqa: ANN401
    member: Any,  # noqa: ANN401
    contacts: float | None,
    activity: Any = None,  # noqa: ANN401
) -> None:
    """Check that both sides of a place layer say the same.

    Args:
        where: Name of the layer, for the message.
        place: (num_agents,) place of each agent, -1 for none.
        indptr: (num_places + 1,) first member of each place.
        member: (num_members,) rows of the members.
        contacts: Mean co-members met per day, or None.
        activity: (num_agents,) activity of each agent, or None.

    Raises:
        DataError: A place, offset or row is out of range, members do not ascend, place and member disagree, or an
            activity is negative or not finite.
        KindError: Places or rows are no integers, or activities no floats.
        ShapeError: There is not one activity per agent.
    """
    if activity is not None:
        _check_activity(where, activity, place.shape[0])
    if contacts is not None and not (np.isfinite(contacts) and contacts >= 0):
        raise DataError(f"{where}: contacts must be finite and >= 0, or None for everyone once a day, got {contacts}")
    if isinstance(indptr, np.ndarray):
        _check_indptr(where, indptr, member.shape[0], "members")
    num_places = indptr.shape[0] - 1
    if isinstance(place, np.ndarray):
        _check_rows(where, "place", place, num_places, lowest=-1)
    if isinstance(member, np.ndarray):
        _check_rows(where, "member", member, place.shape[0])
    if not all(isinstance(a, np.ndarray) for a in (place, indptr, member)):
        return
    at = _first_descent(member, indptr)
    if at is not None:
        raise DataError(
            f"{where}: member[{at}] is {member[at]} after {member[at - 1]} within one place; the members of a place "
            f"must ascend without repeats; {_FROM_PLACES}"
        )
    wrong = place[member] != np.repeat(np.arange(num_places, dtype=np.int64), np.diff(indptr))
    if wrong.any():
        at = int(wrong.argmax())
        listed = int(np.searchsorted(indptr, at, side="right")) - 1
        raise DataError(
            f"{where}: agent {member[at]} is listed as a member of place {listed}, but its place is "
            f"{place[member[at]]}; {_FROM_PLACES}"
        )
    # Members are distinct within a place and each stands in its own, so equal numbers mean that everyone is listed.
    visitors = int(np.count_nonzero(place >= 0))
    if visitors != member.size:
        raise DataError(f"{where}: {visitors} agents have a place, but only {member.size} are members; {_FROM_PLACES}")


def _check_activity(where: str, activity: Any, num_agents: int) -> None:  # noqa: ANN401
    if activity.shape[0] != num_agents:
        raise ShapeError(f"{where}: activity must have one value per agent ({num_agents}), got {activity.shape[0]}")
    if np.dtype(activity.dtype).kind != "f":
        raise KindError(f"{where}: activity must hold floats, got {activity.dtype}; convert it with .astype('float32')")
    if isinstance(activity, np.ndarray):
        bad = ~(np.isfinite(activity) & (activity >= 0))
        if bad.any():
            at = int(bad.argmax())
            raise DataError(f"{where}: activity[{at}] is {activity[at]}; an activity must be finite and >= 0")


def check_areas(num_agents: int, area_start: NDArray[Any], area_region: NDArray[Any]) -> None:
    """Check that areas are runs of rows and regions runs of areas.

    Args:
        num_agents: Number of agents.
        area_start: (num_areas + 1,) first row of each area.
        area_region: (num_areas,) region of each area.

    Raises:
        DataError: The areas do not cut the rows, or regions do not ascend.
    """
    start, region = np.asarray(area_start), np.asarray(area_region)
    if start[0] != 0 or start[-1] != num_agents or (start[1:] < start[:-1]).any():
        raise DataError(
            f"area_start must ascend from 0 to the number of agents, {num_agents}, got {start[0]} to {start[-1]}; "
            "order the agents by area"
        )
    if (region[1:] < region[:-1]).any():
        raise DataError("area_region must ascend; order the areas, and with them the agents, by region")


def check_groups(where: str, group: Any, area_start: NDArray[Any], counts: NDArray[Any]) -> None:  # noqa: ANN401
    """Check the agents' groups against the counts by area and group.

    Args:
        where: Name of the layer, for the message.
        group: (num_agents,) activity group.
        area_start: (num_areas + 1,) first row of each area.
        counts: (num_areas, num_groups) agents.

    Raises:
        DataError: A group is out of range or a count is wrong.
        KindError: Groups are no integers.
    """
    if not isinstance(group, np.ndarray):
        return
    num_areas, num_groups = counts.shape
    _check_rows(where, "group", group, num_groups)
    code = np.repeat(np.arange(num_areas, dtype=np.int64) * num_groups, np.diff(area_start))
    found = np.bincount(code + group, minlength=counts.size).reshape(counts.shape)
    wrong = np.argwhere(found != np.asarray(counts))
    if wrong.size:
        area, code_of_group = wrong[0]
        raise DataError(
            f"{where}: counts by area and group do not match the agents' groups: area {area} has "
            f"{found[area, code_of_group]} agents of group {code_of_group}, counts says {counts[area, code_of_group]}; "
            "count the groups of each area's rows again"
        )


def _check_indptr(where: str, indptr: NDArray[Any], length: int, what: str) -> None:
    if indptr.dtype.kind not in "iu":
        raise KindError(f"{where}: indptr must hold integers, got {indptr.dtype}; convert it to int64")
    if not indptr.size:
        raise ShapeError(f"{where}: indptr is empty; it is the running sum of the sizes, with 0 in front")
    if indptr[0] != 0 or indptr[-1] != length or (indptr[1:] < indptr[:-1]).any():
        raise DataError(
            f"{where}: indptr must ascend from 0 to the number of {what}, {length}, got {indptr[0]} to {indptr[-1]}; "
            "it is the running sum of the sizes, with 0 in front"
        )


def _check_rows(where: str, name: str, rows: NDArray[Any], number: int, lowest: int = 0) -> None:
    if rows.dtype.kind not in "iu":
        raise KindError(f"{where}: {name} must hold integers, got {rows.dtype}; convert it to int32")
    if rows.size and (int(rows.min()) < lowest or int(rows.max()) >= number):
        at = int(((rows < lowest) | (rows >= number)).argmax())
        raise DataError(f"{where}: {name}[{at}] is {rows[at]}, outside {lowest}..{number - 1}; renumber it")


def _check_weight(where: str, weight: NDArray[Any]) -> None:
    if weight.dtype.kind not in "iuf":
        raise KindError(f"{where}: weight must hold numbers, contacts per day, got {weight.dtype}; leave it out for 1")
    # The bound is what the kernels' float32 can hold; NaN fails both comparisons.
    if weight.size and not (weight.min() >= 0 and weight.max() <= np.finfo(np.float32).max):
        at = int((~((weight >= 0) & (weight <= np.finfo(np.float32).max))).argmax())
        raise DataError(
            f"{where}: weight[{at}] is {weight[at]}; weights are contacts per day, finite and >= 0; drop or mend it"
        )


def _first_descent(rows: NDArray[Any], indptr: NDArray[Any]) -> int | None:
    """First position whose row is not above the one before it in the same segment."""
    bad = rows[1:] <= rows[:-1]
    starts = indptr[1:-1]
    bad[starts[(starts > 0) & (starts < rows.size)].astype(np.int64) - 1] = False
    return int(bad.argmax()) + 1 if bad.any() else None
