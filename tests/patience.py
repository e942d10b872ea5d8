"""Waiting, and timing, in tests on a machine that may pause all processes for a while."""

import inspect
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from parallelkit import TaskFailures

SCALES = (0.4, 1.6, 6.4, 16)
"""The first is for a quiet machine, where most runs of a test end with it; the last for one that stands still for seconds."""


PATIENCE = 30.0  # seconds after which a test that waits for something fails


def wait_until(holds: Callable[[], object], patience: float = PATIENCE) -> None:
    """Poll until the condition holds, of which nothing tells us; fail if it still does not after ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.001)


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
