"""Timing tests on a machine that may pause all processes for a while."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from parallelkit import TaskFailures

SCALES = (0.4, 1.6, 6.4, 16)
"""The first is for a quiet machine, where most runs of a test end with it; the last for one that stands still for seconds."""


def given_time(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test again with longer times if it fails; it multiplies all of them by its argument ``scale``.

    A pause of the machine fails one try, and must be longer to fail the next; a defect fails all of them.
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
    tried.__signature__ = signature.replace(parameters=others)  # so that pytest looks for no fixture `scale`
    return tried
