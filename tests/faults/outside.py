"""Looks at a program from outside: a fresh interpreter with a hard limit, and what it leaves behind.

Whatever descends from the program carries a mark in its environment, by which it is found even when it
has left its group, its session and its parent.
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
"""Seconds within which what is ending must be gone: promise 9 says one, and a machine may have no time for us for two."""

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
    """Where this interpreter starts no thread as it ends: Python 3.12.0 to 3.12.2, by a regression (CPython's issue 113964)."""
    argv = [sys.executable, "-c", REFUSES_THREADS]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def skip_if_no_threads(where: str) -> None:
    """Nothing can run here then, and Python's own RuntimeError says so."""
    if where in refused_threads():
        pytest.skip(f"Python {sys.version.split()[0]} starts no threads {where}")


class Finished(NamedTuple):
    """How a program ended: its exit code, what it printed, and how long it took."""

    code: int
    out: str
    err: str
    seconds: float


class Program:
    """An interpreter of its own. Its output goes to files, so that nobody has to read it in time."""

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
        """Until it ends by itself; an error that shows what it printed, if it does not."""
        try:
            code = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not ended within {limit} s\n{self.out}\n{self.err}") from None
        return Finished(code, self.out, self.err, time.monotonic() - self.began)

    def descendants(self) -> list[int]:
        """Every living process that descends from it, whatever has become of those between."""
        return [pid for pid in marked(self.mark) if pid != self.pid]

    def end(self) -> None:
        """Kill what is left of it, and close the files."""
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
    """A program that is over, with all that descends from it, when the block is."""
    started = Program(argv, script, pass_fds)
    try:
        yield started
    finally:
        started.end()


def run_script(script: str, *argv: str, limit: float = 20.0) -> Finished:
    """Run a script as ``python -`` would, or by ``argv``; nothing of it may be left a second after its end."""
    with program(*(argv or ("-",)), script=script) as started:
        finished = started.wait(limit)
        assert [] == soon(started.descendants, []), "processes outlived the program"
    return finished


def rarely(*values: Any) -> list[Any]:
    """Parameters of a test that are only played in ``make test-all``."""
    return [pytest.param(value, marks=pytest.mark.all) for value in values]


def soon(look: Callable[[], object], wanted: object, patience: float = GRACE) -> object:
    """What ``look`` gives, as soon as it is what is wanted, or when the patience is at its end."""
    deadline = time.monotonic() + patience
    pause = 0.001
    while (seen := look()) != wanted and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    return seen


def until(condition: Callable[[], object], patience: float = 20.0) -> None:
    """Wait for what another process does and tells nobody."""
    assert soon(lambda: bool(condition()), True, patience), "it never came about"


def marked(mark: str) -> list[int]:
    """The living processes that carry the mark; a dead one has no environment any more."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with _gone():
                if wanted in Path(f"/proc/{name}/environ").read_bytes():
                    found.append(int(name))
    return found


class Sight(NamedTuple):
    """What a process has at one moment: threads (counted), descendants, descriptors, shared memory."""

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
    """What is new since ``before``; ``abandoned`` threads may be."""
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
                # Not the number: what was closed and opened anew is no leak.
                yield target.partition(":")[0] if target.startswith(("pipe:", "socket:")) else target


@contextmanager
def _gone() -> Iterator[None]:
    """What vanishes while we look at it is not there."""
    try:
        yield
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass


def _content_of(file: IO[bytes]) -> str:
    # Not by seek, which would move the offset at which the program writes.
    return os.pread(file.fileno(), 1 << 24, 0).decode(errors="replace")
