"""``make faults-mutants``: plant bugs in a copy of the package, one at a time, and check that the tests catch each.

Prints which test caught each bug, and how long that took. A bug that nothing catches shows that a test is missing.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))  # tests/, for what the tests share

import leaks

ROOT = Path(__file__).parent.parent.parent
LIMIT = 180.0  # seconds that the tests of one bug may take; pytest ends a hang after 30
FAULTS = "tests/faults"


class Edit(NamedTuple):
    """A replacement: ``old`` must occur in the file exactly once."""

    file: str
    old: str
    new: str


class Mutant(NamedTuple):
    """A bug, and the tests that should catch it, as arguments of pytest."""

    name: str
    edits: Sequence[Edit]
    tests: Sequence[str]


def mutant(name: str, file: str, old: str, new: str, *tests: str) -> Mutant:
    return Mutant(name, [Edit(f"parallelkit/{file}", old, new)], tests)


ENDINGS = "_executors/_process/_endings.py"
BLAME_ALL = """for rest in worker.cut_off(worker.done + (began_at is not None)):
        for at in range(len(rest.tickets)):
            died = (rest.part(at, at + 1), now, now, worker.pid, status, why_of(worker), worker.label)
            rest.lane.post(Died(*died, ""))"""
REQUEUE = "requeue(worker.cut_off(worker.done + (began_at is not None)))"

MUTANTS = [
    mutant(
        "a lost wake-up: who waits does not look again after saying so",
        "_executors/_gate.py",
        "is_ready = bool(ready())",
        "is_ready = False",
        "tests/test_gate.py",
    ),
    mutant(
        "a double settle: what cannot be unpickled is reported as a value, too",
        "_executors/_process/_decode.py",
        "good = [at for at in range(len(indices)) if at not in failures]",
        "good = list(range(len(indices)))",
        f"{FAULTS}/test_catalogue.py",
        "-k",
        "unpickling",
    ),
    mutant(
        "results dropped on death: those that nobody has taken by then",
        "_executors/_process/_supervisor.py",
        "            self._settle(worker, worker.reap(), now)\n",
        "            [lane.events.clear() for lane in self.pool.lanes]\n            self._settle(worker, worker.reap(), now)\n",
        f"{FAULTS}/test_p02_committed_results.py",
        f"{FAULTS}/test_random_kills.py",
    ),
    mutant(
        "the queue is blamed with the dead",
        ENDINGS,
        REQUEUE,
        BLAME_ALL,
        f"{FAULTS}/test_p02_committed_results.py",
    ),
    mutant(
        "the blamed one runs again",
        ENDINGS,
        REQUEUE,
        "requeue(worker.cut_off(worker.done))",
        f"{FAULTS}/test_catalogue.py",
        "-k",
        "leaves",
    ),
    Mutant(
        "a timeout from the submission, not from the start",
        [
            Edit(
                "parallelkit/_executors/_process/_lane.py",
                "        self.fatal_loads = 0\n",
                "        self.opened_at = __import__('time').monotonic()\n        self.fatal_loads = 0\n",
            ),
            Edit(
                "parallelkit/_executors/_process/_handle.py",
                "due = running[1] + limit",
                "due = self.batches[0].lane.opened_at + limit",
            ),
        ],
        [f"{FAULTS}/test_p03_three_clocks.py", "tests/test_processes.py", "-k", "timeout"],
    ),
    Mutant(
        "a kill without its group, neither by us nor by the lifeline",
        [
            Edit(
                "parallelkit/_executors/_process/_killing.py",
                "os.killpg(pid, _signal.SIGKILL)",
                "os.kill(pid, _signal.SIGKILL)",
            ),
            Edit(
                "parallelkit/_worker/_lifeline.py",
                "fcntl(fd, F_SETOWN, -os.getpid())",
                "fcntl(fd, F_SETOWN, os.getpid())",
            ),
        ],
        [f"{FAULTS}/test_p04_timeouts_kill_or_abandon.py", "-k", "children"],
    ),
    mutant(
        "a worker goes on with what was taken back from it",
        "_worker/_serve.py",
        "if number >= head[LIMIT]:",
        "if number < 0:",
        "tests/test_processes.py",
        "-k",
        "waits_behind",
    ),
    mutant(
        "children outlive the parent: its death is told to the worker alone",
        "_worker/_lifeline.py",
        "fcntl(fd, F_SETOWN, -os.getpid())",
        "fcntl(fd, F_SETOWN, os.getpid())",
        f"{FAULTS}/test_p09_interrupts.py",
        f"{FAULTS}/test_random_kills.py",
        "-k",
        "parent",
    ),
    mutant(
        "an error given back as a value",
        "_worker/_serve.py",
        "self.slots.put_failure(slot, _faults.capture(error))\n            else:",
        "self.slots.put_object(slot, error)\n            else:",
        f"{FAULTS}/test_catalogue.py",
        "-k",
        "raises",
    ),
    mutant(
        "Ctrl-C forgotten while the run waits",
        "_interrupt.py",
        "        self.asked = True\n",
        "        self.asked = at_once\n",
        f"{FAULTS}/test_p09_interrupts.py",
        "-k",
        "that_waits",
    ),
    mutant(
        "an abandoned thread keeps its slot",
        "_executors/_thread/_slots.py",
        "return self._max_workers - max(0, len(self._abandoned) - self._max_workers)",
        "return self._max_workers - len(self._abandoned)",
        f"{FAULTS}/test_p04_timeouts_kill_or_abandon.py",
    ),
    mutant(
        "a descriptor left for each worker that ended",
        "_executors/_process/_killable.py",
        "        os.close(self.pidfd)\n",
        "",
        f"{FAULTS}/test_p10_no_leaks.py",
    ),
    mutant(
        "a frame is believed to be as long as it should be",
        "_executors/_process/_validation.py",
        "if len(body) < WORD.size:",
        "if len(body) < 0:",
        f"{FAULTS}/test_garbage.py",
        "-m",
        "",
        "-k",
        "byte",
    ),
]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="plant only the bugs whose name contains this")
    only = parser.parse_args(arguments).only
    chosen = [mutant for mutant in MUTANTS if only in mutant.name]
    leaks.become_subreaper()
    with tempfile.TemporaryDirectory(prefix="parallelkit-mutants-") as folder:
        copy = make_copy(Path(folder))
        caught = 0
        for one in chosen:
            healthy = hunt(copy, one, mutated=False) and hunt(copy, one, mutated=False)
            if healthy is not None:
                say(f"even without the bug, {healthy} fails: no verdict is possible")
                return 2
            began = time.monotonic()
            found = hunt(copy, one, mutated=True)
            took = time.monotonic() - began
            caught += found is not None
            say(f"{one.name}\n    {'caught by ' + found if found else 'SURVIVED'} ({took:.1f} s)")
    say(f"{caught}/{len(chosen)}")
    return int(caught < len(chosen) or not chosen)


def make_copy(folder: Path) -> Path:
    """Copy the package and its tests, so that the originals are never changed."""
    for name in ("parallelkit", "tests"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis")
        )
    for name in ("setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def hunt(copy: Path, one: Mutant, mutated: bool) -> str | None:
    """Run the tests of a bug, with or without it; return the first that fails, or None."""
    before = {edit.file: (copy / edit.file).read_text() for edit in one.edits}
    try:
        for edit in one.edits if mutated else ():
            plant(copy / edit.file, edit)
        return first_failure(copy, one.tests)
    finally:
        end_what_is_left()
        for file, text in before.items():
            (copy / file).write_text(text)


def plant(path: Path, edit: Edit) -> None:
    text = path.read_text()
    if text.count(edit.old) != 1:
        raise SystemExit(f"{edit.file}: found {text.count(edit.old)} times, not once:\n{edit.old}")
    path.write_text(text.replace(edit.old, edit.new))


def first_failure(copy: Path, tests: Sequence[str]) -> str | None:
    """Run tests of the copy until one fails or hangs; return its name, or None."""
    command = [sys.executable, "-m", "pytest", "-x", "-v", "--tb=short", "-p", "no:cacheprovider"]
    process = subprocess.Popen(
        [*command, "-o", "faulthandler_timeout=30", *tests],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        told, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        told, _ = process.communicate()
        process.returncode = -1
    if process.returncode == 0:
        return None
    if process.returncode in (2, 3, 4, 5):  # interrupted, pytest failed, misused, no tests
        raise SystemExit(f"the tests could not be run: {' '.join(tests)}\n{told[-3000:]}")
    named = re.findall(r"^(?:FAILED|ERROR) (\S+::.*?)(?: - .*)?$", told, re.MULTILINE)
    if named:
        return str(named[0])
    seen = re.findall(r"^(tests/\S+::\S+)", told, re.MULTILINE)
    return f"{seen[-1]}, which hangs" if seen else f"an end of the tests with code {process.returncode}"


def end_what_is_left() -> None:
    """Kill the workers that some bugs leave behind: their parent is gone, so they are our children."""
    while left := leaks.processes():
        for pid in left:
            with suppress(ProcessLookupError):  # it ended with its parent
                os.kill(pid, signal.SIGKILL)
        for pid in left:
            with suppress(ChildProcessError):  # still a grandchild: its parent is only just ending
                os.waitpid(pid, 0)


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  # it is a program


if __name__ == "__main__":
    sys.exit(main())
