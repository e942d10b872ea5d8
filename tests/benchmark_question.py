"""A benchmark question with systems that answer, fail, crash and hang, for test_benchmarks.py."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks._question import Figures, Question, Run


@contextmanager
def offering(run: Callable[[int], float]) -> Iterator[Run]:
    yield run


def double(case: int) -> float:
    return 2.0 * case


def fail(case: int) -> float:
    raise ValueError(f"no {case}")


def crash(case: int) -> float:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("the line above ended the process")


def hang(case: int) -> float:
    threading.Event().wait()
    raise AssertionError("the line above never returns")


def figures(run: Run, case: int) -> Figures:
    return {"units": run(case)}


def systems(*runs: Callable[[int], float]) -> dict[str, Any]:
    return {run.__name__: partial(offering, run) for run in runs}


QUESTION = Question(
    asks="Who answers?",
    systems=systems(double, fail, crash, hang),
    cases={"one": 1, "two": 2},
    measure=figures,
    unit="units",
)
