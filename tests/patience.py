"""Tests of time, on a machine that may let nobody run for a while."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from parallelkit import TaskFailures

SCALES = (1, 4, 16)


def given_time(test: Callable[..., None]) -> Callable[..., None]:
    """Give a test, which multiplies its times by ``scale``, more of it should it fail.

    A pause of the machine spoils one try, and must be longer to spoil the next; a fault spoils all of them.
    """

    @wraps(test)
    def tried(**fixtures: Any) -> None:
        for scale in SCALES[:-1]:
            try:
                return test(**fixtures, scale=scale)
            except (AssertionError, TaskFailures):
                pass
        return test(**fixtures, scale=SCALES[-1])

    signature = inspect.signature(test)
    others = [parameter for name, parameter in signature.parameters.items() if name != "scale"]
    tried.__signature__ = signature.replace(parameters=others)  # which has pytest look for no such fixture
    return tried
