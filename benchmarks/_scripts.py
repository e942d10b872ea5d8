"""Whole programs as systems: each measurement starts a bare interpreter."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

from benchmarks._question import Run


class StillThereError(Exception):
    """A program had nothing left to do, but did not exit."""


class Course(NamedTuple):
    """The course of a program: seconds until its first line of output and until its exit, and that line."""

    to_line: float
    to_end: float
    line: str


@contextmanager
def program(source: str, patience: float) -> Iterator[Run]:
    """Runs the program, which must exit within ``patience`` seconds of its first line."""

    def run() -> Course:
        began = perf_counter()
        with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            to_line = perf_counter() - began
            try:
                code = process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
                raise StillThereError(f"still there {patience:g} s after its last line") from None
            to_end = perf_counter() - began
        if code:
            raise RuntimeError(f"the program exited with {code}")
        return Course(to_line, to_end, line)

    yield run


def programs(sources: dict[str, str], patience: float = 30) -> dict[str, Callable[[], Any]]:
    """A system for each program."""
    return {name: partial(program, source, patience) for name, source in sources.items()}
