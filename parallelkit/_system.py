"""The system's clock and files as they are, though a test has put others in their place: it means its own code.

``freezegun`` puts a clock that stands still into every module that has ``time.monotonic``, and a mock of ``open`` is
asked for whatever is opened. A run here would wait for ever, or read a mock's text as its number of cpus.
"""

from __future__ import annotations

from _frozen_importlib import BuiltinImporter, module_from_spec
from collections.abc import Callable
from io import FileIO


def _own_clock() -> Callable[[], float]:
    """That of a copy of the module ``time``, which nobody else knows."""
    spec = BuiltinImporter.find_spec("time")
    assert spec is not None, "it is built in"
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    clock: Callable[[], float] = module.monotonic
    return clock


monotonic = _own_clock()


def read(path: str) -> str:
    """What a file of the system has to tell, whatever its bytes. Raises OSError."""
    with FileIO(path) as file:
        return file.readall().decode("latin-1")
