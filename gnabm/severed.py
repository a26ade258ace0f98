"""Where a rule cuts the chain of a gradient: the operations that take values which carry one and return none that do.

A `Watch` listens to every call of torch that a line of a rule makes. Whatever gnabm does itself, such as a keyed draw,
is left out: it notes the likelihood of what it draws. Which parameters a value carries the gradient of is read from its
graph; what one step hands on to the next is told to the watch (`Watch.hand_on`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gnabm.callers import caller, is_shipped, place
from gnabm.rule import Rule

_NUMBERS = ("item", "tolist", "__float__", "__int__", "__bool__", "__index__", "__complex__")
_NUMPY = ("numpy", "__array__")
_ROUNDING = ("round", "floor", "ceil", "trunc", "fix", "sign", "sgn", "floor_divide", "__floordiv__", "heaviside")
_WRITES = ("__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__")
_SETTERS = ("requires_grad_", "retain_grad_")
_EMPTY = ("_like", "new_zeros", "new_ones", "new_empty", "new_full")
_FUNCTION = torch.autograd.function.__file__
COMPARISON, IN_PLACE = "comparison", "in-place write"


@dataclass(eq=False)
class Cut:
    """An operation that lets no gradient through.

    Args:
        rule: Name of the rule, or "" where none is on the way.
        where: File and line.
        kind: What it does: `comparison`, `.detach()`, `Python number`, `rounding`, ...
        operation: Name of the function.
        shipped: Whether the line is gnabm's own.
        parameters: Names of the parameters whose gradient it stops.
    """

    rule: str
    where: str
    kind: str
    operation: str
    shipped: bool
    parameters: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        """Rule, file and line, operation."""
        rule = f"{self.rule}, " if self.rule else ""
        operation = "" if self.kind.startswith(".") or self.operation in self.kind else f" ({self.operation})"
        return f"{rule}{self.where}: {self.kind}{operation}"


class Watch(TorchFunctionMode):
    """Listens to torch while rules run.

    Args:
        leaves: Tensors that stand for the parameters in the run, by name.
    """

    def __init__(self, leaves: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.cuts: dict[tuple[str, str, str], Cut] = {}
        self.writes: list[Cut] = []
        self.names = {id(leaf): {name} for name, leaf in leaves.items()}
        self.kept: list[Tensor] = list(leaves.values())

    def hand_on(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
        """Tell that tensors stand, as leaves of a new graph, for those of the same names.

        Args:
            before: With the graph of what came before.
            after: The leaves.
        """
        reached = {name: self.carried_by([tensor]) for name, tensor in before.items()}
        for name, leaf in after.items():
            self.names[id(leaf)] = reached[name]
            self.kept.append(leaf)  # an id is its own only while the tensor lives

    def carried_by(self, tensors: Iterable[Tensor]) -> set[str]:
        """Names of the parameters that tensors carry the gradient of."""
        found: set[str] = set()
        nodes = []
        for tensor in tensors:
            if tensor.grad_fn is not None:
                nodes.append(tensor.grad_fn)
            else:
                found |= self.names.get(id(tensor), set())
        seen = set(nodes)
        while nodes:
            node = nodes.pop()
            if hasattr(node, "variable"):
                found |= self.names.get(id(node.variable), set())
            for following, _ in node.next_functions:
                if following is not None and following not in seen:
                    seen.add(following)
                    nodes.append(following)
        return found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Make the call, and note it if it cuts."""
        del types
        kwargs = kwargs or {}
        name = _name(func)
        target = args[0] if args and isinstance(args[0], Tensor) else None
        writes = target is not None and _is_write(name)
        carrying = [t for t in _tensors((args, kwargs)) if t.requires_grad]
        if not (writes or carrying):
            return func(*args, **kwargs)
        frame = caller()
        if frame is None or _has_gradient_of_its_own(frame):
            return func(*args, **kwargs)
        if writes:
            self.writes.append(self._note(frame, IN_PLACE, name, carrying))
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        kind = _kind(name, result, kwargs)
        if kind is not None:
            self._note(frame, kind, name, carrying)
        return result

    def _note(self, frame: FrameType, kind: str, name: str, carrying: Iterable[Tensor]) -> Cut:
        rule = _rule(frame)
        key = rule, place(frame), kind
        cut = self.cuts.setdefault(key, Cut(*key, name.strip("_"), is_shipped(frame)))
        cut.parameters |= self.carried_by(carrying)
        return cut


def _has_gradient_of_its_own(frame: FrameType | None) -> bool:
    """Whether a frame runs within `torch.autograd.Function.apply`, whose backward says what gets through."""
    while frame is not None:
        if frame.f_code.co_name == "apply" and frame.f_code.co_filename == _FUNCTION:
            return True
        frame = frame.f_back
    return False


def _name(func: Any) -> str:  # noqa: ANN401
    """Name of a function of torch; that of the attribute for an attribute that is read."""
    name = str(getattr(func, "__name__", func))
    return f"get {getattr(func.__self__, '__name__', '')}" if name == "__get__" else name


def _is_write(name: str) -> bool:
    return name in _WRITES or (name.endswith("_") and not name.endswith("__") and name not in _SETTERS)


def _tensors(nested: Any) -> Iterator[Tensor]:  # noqa: ANN401
    if isinstance(nested, Tensor):
        yield nested
    elif isinstance(nested, dict):
        yield from _tensors(list(nested.values()))
    elif isinstance(nested, (list, tuple)):
        for part in nested:
            yield from _tensors(part)


def _kind(name: str, result: Any, kwargs: Mapping[str, Any]) -> str | None:  # noqa: ANN401
    """How a call on values that carry gradient cuts the chain; None where it does not."""
    if name in _NUMBERS:
        return "Python number"
    if name in _NUMPY:
        return "numpy"
    if name in ("detach", "get data"):
        return ".detach()" if name == "detach" else ".data"
    if name in _ROUNDING or kwargs.get("rounding_mode") is not None:
        return "rounding"
    made = list(_tensors(result))
    if name.startswith("get ") or not made or any(t.requires_grad for t in made) or name.endswith(_EMPTY):
        return None
    if any(t.is_floating_point() for t in made):
        return "torch.no_grad" if not torch.is_grad_enabled() else "copy without gradient"
    if all(t.dtype == torch.bool for t in made):
        return COMPARISON
    return "integer cast" if name in ("to", "type", "long", "int", "short", "byte", "char") else "whole number"


def _rule(frame: FrameType | None) -> str:
    """Name of the rule in whose method a frame runs."""
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, Rule):
            return owner.name
        frame = frame.f_back
    return ""
