"""What joblib's calls need in a worker; it imports as little as possible."""

from __future__ import annotations

import os
from mmap import ACCESS_COPY, mmap

from parallelkit._worker._travel import unpack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NAME = "parallelkit"  # of the backend, in joblib

LIBRARIES = ("OMP", "OPENBLAS", "MKL", "BLIS", "VECLIB_MAXIMUM", "NUMBA", "NUMEXPR")


def run(packed: tuple[bytes, list[Any]]) -> Any:
    """Make the calls of a batch. The backend is registered first, because they may use it by its name."""
    from joblib.parallel import BACKENDS

    BACKENDS.setdefault(NAME, make_backend)
    blob, parts = packed
    return unpack(blob, [map_part(*part) if type(part) is tuple else part for part in parts])()


def map_part(path: str, size: int) -> mmap:
    """Map a buffer that the parent keeps for all workers, privately: no other process sees what is written to it."""
    with open(path, "rb") as file:
        return mmap(file.fileno(), size, access=ACCESS_COPY)


def make_backend(**options: Any) -> Any:
    """Make a backend, for a call that uses one; imported late and by name, since most calls use none."""
    from importlib import import_module

    return import_module("parallelkit.joblib_backend").backend_class()(**options)


def set_up(threads: int | None, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    """Cap the threads of numerical libraries, before any is loaded, and run the caller's initializer."""
    if threads is not None:
        os.environ.update({f"{library}_NUM_THREADS": str(threads) for library in LIBRARIES})
    if initializer is not None:
        initializer(*initargs)
