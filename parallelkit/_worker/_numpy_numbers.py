"""Results that are numbers or truth values of numpy: a slot holds each as one of Python's, and the other end gives it its type back.

To pickle and unpickle one takes five times as long.
"""

from __future__ import annotations

from sys import modules

from parallelkit._worker._channel import BOOL, FLOAT32, FLOAT64, INT64, Ring

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_NAMES = {FLOAT64: "float64", FLOAT32: "float32", INT64: "int64", BOOL: "bool_"}


def puts_for(ring: Ring) -> dict[type, Callable[[int, Any], None]]:
    """By type, how a number is put into a slot; empty as long as numpy is not loaded."""
    numpy = modules.get("numpy")
    types = {kind: getattr(numpy, name, None) for kind, name in _NAMES.items()}
    if None in types.values():  # it is just being loaded, by a thread of a task
        return {}
    return {numbers: _put(ring, kind) for kind, numbers in types.items()}  # type: ignore[misc]  # none is None


def _put(ring: Ring, kind: int) -> Callable[[int, Any], None]:
    column, kinds = ring.words if kind == INT64 else ring.floats, ring.kinds

    def put(slot: int, value: Any) -> None:
        column[slot] = value
        kinds[slot] = kind

    return put


def read_numbers(kind: int, words: bytes) -> list[Any] | None:
    """All numbers of a column of words; None if numpy is not loaded here."""
    numpy = modules.get("numpy")
    if not hasattr(numpy, "frombuffer"):
        return None
    return list(numpy.frombuffer(words, "int64" if kind == INT64 else "float64").astype(_NAMES[kind]))  # type: ignore[union-attr]  # it has been asked


def read_number(kind: int, word: int, real: float) -> Any:
    """One number, which is in a slot as an integer or as a float; loads numpy if need be."""
    import numpy as np

    return getattr(np, _NAMES[kind])(word if kind == INT64 else real)
