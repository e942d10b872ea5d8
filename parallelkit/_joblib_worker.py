"""What joblib's calls need in a worker, which imports no more than this for it."""

from __future__ import annotations

import os
from mmap import ACCESS_COPY, mmap

from parallelkit._worker._travel import unpack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NAME = "parallelkit"
MAPPED = "mapped"

LIBRARIES = ("OMP", "OPENBLAS", "MKL", "BLIS", "VECLIB_MAXIMUM", "NUMBA", "NUMEXPR")


def run(packed: tuple[bytes, list[Any]]) -> Any:
    """Make the calls of a batch. Our backend is known to them by name, as it was where they come from."""
    from joblib.parallel import BACKENDS

    BACKENDS.setdefault(NAME, make_backend)
    blob, parts = packed
    return unpack(blob, [map_part(*part) if type(part) is tuple else part for part in parts])()


def map_part(kind: str, path: str, size: int) -> mmap:
    """A buffer that the parent keeps for all workers, as private memory: what is written there nobody else sees."""
    assert kind == MAPPED, f"no such part: {kind}"
    with open(path, "rb") as file:
        return mmap(file.fileno(), size, access=ACCESS_COPY)


def make_backend(**options: Any) -> Any:
    """The backend, for a call that uses it; looked up by its name, since it costs more than most calls need."""
    from importlib import import_module

    return import_module("parallelkit.joblib_backend").backend_class()(**options)


def set_up(threads: int | None, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    """Before anything is loaded: cap the threads of numerical libraries, and run the caller's initializer."""
    if threads is not None:
        os.environ.update({f"{library}_NUM_THREADS": str(threads) for library in LIBRARIES})
    if initializer is not None:
        initializer(*initargs)
