"""The system's clock and files as they are, though a test has put others in their place: it means its own code.

``freezegun`` puts a clock that stands still into every module that has ``time.monotonic``, and a mock of ``open`` is
asked for whatever is opened. A run here would wait for ever, or read a mock's text as its number of cpus.
"""

from __future__ import annotations

from _frozen_importlib import BuiltinImporter, module_from_spec
from collections.abc import Callable
from io import FileIO


def _own_clock() -> Callable[[], float]:
    """That of a copy of the module ``time``, which nobody else knows.

    time-machine before its version 3 changes the functions themselves, but not this other one of the same clock.
    """
    spec = BuiltinImporter.find_spec("time")
    assert spec is not None, "it is built in"
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    same = (
        module.get_clock_info("perf_counter").implementation
        == module.get_clock_info("monotonic").implementation
    )
    clock: Callable[[], float] = module.perf_counter if same else module.monotonic
    return clock


monotonic = _own_clock()


def read(path: str) -> str:
    """What a file of the system has to tell, whatever its bytes. Raises OSError."""
    with FileIO(path) as file:
        return file.readall().decode("latin-1")
