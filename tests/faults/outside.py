"""Run a program in a fresh interpreter, observe it from outside, and find what it leaves behind.

All descendants of the program inherit a mark in their environment, by which they are found even if they
have left their process group, their session and their parent.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import leaks
import pytest
from interrupts import let_interrupts_in

HERE = Path(__file__).parent
MARK = "PARALLELKIT_FAULT_MARK"
PATH = os.pathsep.join(filter(None, [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH")]))
GRACE = 3.0
"""Seconds within which whatever is ending must be gone: promise 9 says one, and a busy machine may pause us for two."""

let_interrupts_in()


REFUSES_THREADS = """
import atexit, threading
def begin(where):
    try:
        threading.Thread(target=int).start()
    except RuntimeError:
        print(where, flush=True)
atexit.register(begin, "in an exit handler")
threading.Thread(target=lambda: (threading.main_thread().join(), begin("beside the end of the main thread"))).start()
"""


@cache
def refused_threads() -> str:
    """The places where this interpreter refuses to start threads at exit: 3.12.0 to 3.12.2, a regression (CPython issue 113964)."""
    argv = [sys.executable, "-c", REFUSES_THREADS]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def skip_if_no_threads(where: str) -> None:
    """Skip a test if Python starts no threads there: then nothing can run, and Python's own RuntimeError says so."""
    if where in refused_threads():
        pytest.skip(f"Python {sys.version.split()[0]} starts no threads {where}")


class Finished(NamedTuple):
    """How a program ended: its exit code, what it printed, how long it took, and when that was."""

    code: int
    out: str
    err: str
    seconds: float
    ended_at: float


class Program:
    """A program in an interpreter of its own. Its output goes to files, so that no pipe has to be drained."""

    def __init__(self, argv: Sequence[str], script: str = "", pass_fds: Sequence[int] = ()) -> None:
        self.mark = uuid.uuid4().hex
        self._out = tempfile.TemporaryFile()  # noqa: SIM115  # closed by end()
        self._err = tempfile.TemporaryFile()  # noqa: SIM115  # the same
        with tempfile.TemporaryFile() as stdin:
            stdin.write(script.encode())
            stdin.seek(0)
            self.process = subprocess.Popen(
                [sys.executable, *argv],
                stdin=stdin,
                stdout=self._out,
                stderr=self._err,
                pass_fds=pass_fds,
                env={**os.environ, MARK: self.mark, "PYTHONPATH": PATH},
                process_group=0,
            )
        self.pid = self.process.pid
        self.began = time.monotonic()

    @property
    def out(self) -> str:
        return _content_of(self._out)

    @property
    def err(self) -> str:
        return _content_of(self._err)

    def wait(self, limit: float) -> Finished:
        """Wait until it ends by itself; if it does not, raise an error that shows what it printed."""
        try:
            code = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not ended within {limit} s\n{self.out}\n{self.err}") from None
        ended_at = time.monotonic()
        return Finished(code, self.out, self.err, ended_at - self.began, ended_at)

    def descendants(self) -> list[int]:
        """Every living process that descends from it, even if the processes in between have ended.

        But for multiprocessing's resource tracker, which ends with it: since Python 3.14 the first bar starts one.
        """
        others = [pid for pid in marked(self.mark) if pid != self.pid]
        return [pid for pid in others if "resource_tracker" not in leaks.describe_process(pid)]

    def end(self) -> None:
        """Kill the program and its descendants, and close the files."""
        while left := marked(self.mark):
            for pid in left:
                with _gone():
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.001)
        self.process.wait()
        self._out.close()
        self._err.close()


@contextmanager
def program(*argv: str, script: str = "", pass_fds: Sequence[int] = ()) -> Iterator[Program]:
    """A program that is killed, with all its descendants, when the block ends."""
    started = Program(argv, script, pass_fds)
    try:
        yield started
    finally:
        started.end()


def run_script(script: str, *argv: str, limit: float = 20.0) -> Finished:
    """Run a script with ``python -``, or with ``argv``; no descendant may be left soon after its exit."""
    with program(*(argv or ("-",)), script=script) as started:
        finished = started.wait(limit)
        assert [] == soon(started.descendants, []), "processes outlived the program"
    return finished


def rarely(*values: Any) -> list[Any]:
    """Parameters of a test that run only in ``make test-all``."""
    return [pytest.param(value, marks=pytest.mark.all) for value in values]


def soon(look: Callable[[], object], wanted: object, patience: float = GRACE) -> object:
    """Poll ``look`` until it returns ``wanted``, for at most ``patience`` seconds; return what it returned last."""
    deadline = time.monotonic() + patience
    pause = 0.001
    while (seen := look()) != wanted and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    return seen


def until(condition: Callable[[], object], patience: float = 20.0) -> None:
    """Poll until the condition is true; fail after ``patience`` seconds."""
    assert soon(lambda: bool(condition()), True, patience), "it never came about"


def marked(mark: str) -> list[int]:
    """The living processes that carry the mark; a zombie has no environment any more."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with _gone():
                if wanted in Path(f"/proc/{name}/environ").read_bytes():
                    found.append(int(name))
    return found


class Sight(NamedTuple):
    """A snapshot of a process: number of threads, descendants, descriptors, and all shared memory."""

    threads: int
    processes: frozenset[int]
    descriptors: Counter[str]
    shared_memory: frozenset[str]


def look_at(program: Program) -> Sight:
    pid = program.pid
    return Sight(
        len(os.listdir(f"/proc/{pid}/task")),
        frozenset(program.descendants()),
        Counter(_descriptors(pid)),
        leaks.shared_memory(),
    )


def left_behind(program: Program, before: Sight, abandoned: int) -> list[str]:
    """One line for each thing that is new since ``before``, except for ``abandoned`` threads."""
    now = look_at(program)
    more = now.threads - before.threads - abandoned
    return [
        *([f"{more} threads"] if more > 0 else []),
        *(leaks.describe_process(pid) for pid in now.processes - before.processes),
        *(f"descriptor {target}" for target in (now.descriptors - before.descriptors).elements()),
        *(f"/dev/shm/{name}" for name in now.shared_memory - before.shared_memory if leaks.is_ours(name)),
    ]


def _descriptors(pid: int) -> Iterator[str]:
    for name in os.listdir(f"/proc/{pid}/fd"):
        with _gone():
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            if target not in leaks.LAZY:
                # Without its number: a pipe or socket that was closed and reopened is no leak.
                yield target.partition(":")[0] if target.startswith(("pipe:", "socket:")) else target


@contextmanager
def _gone() -> Iterator[None]:
    """Ignore what vanishes while we look at it."""
    try:
        yield
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass


def _content_of(file: IO[bytes]) -> str:
    # Not with seek, which would move the offset that the program shares and writes at.
    return os.pread(file.fileno(), 1 << 24, 0).decode(errors="replace")
