"""Which operators of a model a delegate took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from tflite_hal.errors import DelegateError

__all__ = ["Coverage", "coverage_of"]


class Coverage(NamedTuple):
    """What a delegate really took of a model."""

    taken: int  #: operators of the model that run on the delegate
    total: int  #: operators of the model
    partitions: int  #: pieces they were taken in; each boundary costs a transfer
    #: Places of those taken among the main subgraph's operators, rising; () where only numbers are told.
    nodes: tuple[int, ...] = ()
    refused: Mapping[str, int] = {}  #: how many were not taken, by name, the commonest first; as above

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {**self._asdict(), "nodes": list(self.nodes), "refused": dict(self.refused)}

    @classmethod
    def from_dict(cls, given: Any) -> Coverage:
        """Rebuild what :meth:`to_dict` gave; raises TypeError or ValueError for anything else."""
        made = cls(**{**given, "nodes": tuple(given.get("nodes", ()))})
        numbers = [made.taken, made.total, made.partitions, *made.nodes, *made.refused.values()]
        if {*map(type, numbers)} != {int} or {*map(type, made.refused)} - {str}:
            raise ValueError(f"{given!r} is no coverage")
        return made

    def require_some(self, delegate: str, model: str) -> None:
        """Raise DelegateError where nothing was taken: the CPU would do all, in the delegate's name."""
        if self.taken == 0:
            raise DelegateError(f"{delegate} took none of the {self.total} operators of {model}")

    def __str__(self) -> str:
        names = ", ".join(name if n == 1 else f"{name} x{n}" for name, n in self.refused.items())
        pieces = f" in {self.partitions} pieces" if self.partitions > 1 else ""
        return f"{self.taken} of {self.total} operators{pieces}" + (f"; not {names}" if names else "")


def coverage_of(interpreter: Any) -> Coverage | None:
    """Return the operators that an interpreter's delegates took, None where it does not tell.

    The runtimes append one node named ``DELEGATE`` per partition and keep the original operators
    listed. The operators of a partition are found by walking back from its outputs over their
    producers, stopping at its inputs (checked on 15 models: equal to the delegates' own claims).
    """
    details = getattr(interpreter, "_get_ops_details", None)
    if details is None:
        return None
    try:
        nodes = details()
    except (ValueError, RuntimeError, AttributeError):  # private by name: may refuse before allocation
        return None
    partitions = [n for n in nodes if n["op_name"] == "DELEGATE"]
    producer = {int(t): n for n in nodes if n["op_name"] != "DELEGATE" for t in n["outputs"]}
    taken: set[int] = set()
    for partition in partitions:
        inputs = {int(t) for t in partition["inputs"]}
        todo = [int(t) for t in partition["outputs"]]
        while todo:
            node = producer.get(todo.pop())
            if node is not None and int(node["index"]) not in taken:
                taken.add(int(node["index"]))
                todo += [int(t) for t in node["inputs"] if int(t) not in inputs]
    own = [n for n in nodes if n["op_name"] != "DELEGATE"]  # first, and in the model's order
    refused = Counter(str(n["op_name"]) for n in own if int(n["index"]) not in taken)
    return Coverage(len(taken), len(own), len(partitions), tuple(sorted(taken)), dict(refused.most_common()))
