"""Which operation of a rule is the likely cause of a broken promise, on which line, and what to write instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gnabm.callers import caller, place

_EXPRESSION = "its bits depend on where a row stands: vectorised rows and the last few of a run are rounded differently"
_ROW_SUM = "a float sum over rows depends on threads and shards: use step.total"
_MATRIX = (
    "a matrix product's order of sums depends on the number of rows: sum column by column, or use fixed-size tiles"
)
_GENERATOR = "a global generator knows no agent: draw with step.bernoulli or step.uniform"
_CAUSES: Mapping[str, str] = {
    "index": "x[index] has a thread-dependent backward: use x.index_select(0, index)",
    "index_put": "index_put with accumulate adds in an order that depends on threads: use contacts[...].sum_neighbours",
    "pow": f"{_EXPRESSION}: write x * x, or torch.exp(a * torch.log(x))",
    "sigmoid": f"{_EXPRESSION}: write 1 / (1 + torch.exp(-x))",
    "softplus": f"{_EXPRESSION}: write torch.log1p(torch.exp(x))",
    "silu": f"{_EXPRESSION}: write x / (1 + torch.exp(-x))",
    "gelu": f"{_EXPRESSION}: build it from tanh",
    "_softmax": f"{_EXPRESSION}: build it from exp and sums over a fixed number of columns",
    "_log_softmax": f"{_EXPRESSION}: build it from exp, log and sums over a fixed number of columns",
    "logit": f"{_EXPRESSION}: write torch.log(p) - torch.log1p(-p)",
    **dict.fromkeys(("sum", "mean", "var", "std", "cumsum", "prod", "logsumexp", "norm"), _ROW_SUM),
    **dict.fromkeys(("mm", "addmm", "bmm", "mv", "addmv", "dot", "baddbmm", "_sparse_mm"), _MATRIX),
    **dict.fromkeys(("rand", "randn", "randint", "rand_like", "randn_like", "randperm", "bernoulli"), _GENERATOR),
    **dict.fromkeys(("multinomial", "normal", "uniform", "exponential"), _GENERATOR),
    "arange": "torch.arange numbers rows, which change with the shard: who an agent is, is agents.key",
}  # fmt: skip


class _Listener(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes suspicious operations and the line of the rule that asked for them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.heard: dict[tuple[str, str], str] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        del types
        name = str(func.overloadpacket).split(".")[-1].removesuffix("_")
        if name in _CAUSES and _suspicious(name, args):
            frame = caller()
            if frame is not None:
                self.heard.setdefault((name, place(frame)), _CAUSES[name])
        return func(*args, **(kwargs or {}))


def _suspicious(name: str, args: tuple[Any, ...]) -> bool:
    floats = any(isinstance(a, Tensor) and a.is_floating_point() for a in args)
    if name == "pow":
        return not (len(args) > 1 and args[1] in (1, 2))
    if name == "index_put":
        return len(args) > 3 and bool(args[3])
    return floats or _CAUSES[name] == _GENERATOR or name == "arange"


def likely_causes(run: Callable[[], object]) -> str:
    """Run something that applies rules and tell which of their operations are outside the reproducible class.

    Args:
        run: Applies the rules, such as a short simulation.

    Returns:
        A sentence for an error message.
    """
    # What a broken rule raises on the way must not hide the difference that is being explained.
    with _Listener() as listener, suppress(Exception):
        run()
    # Numbering rows is often harmless; it is named where nothing else explains the difference.
    heard = [item for item in listener.heard.items() if item[0][0] != "arange"] or list(listener.heard.items())
    if heard:
        return "likely cause: " + "; ".join(f"{name} at {where}: {cure}" for (name, where), cure in heard[:4])
    return (
        "no operation that is known to depend on rows, threads or shards was found; look for what reads the number or "
        "the order of rows, a global, or NumPy"
    )
