"""``make soak``: tasks without end, some of which fail, crash or hang; nothing may grow, and nothing slow down.

Two streams in one program, in processes and in threads: one task in a hundred fails and is tried again, one
in a thousand (in processes) crashes or hangs. Every outcome is compared with what it should be. The
program is looked at from outside; what is there at the end is compared with what was there at the beginning.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))  # tests/, for what the tests share

import leaks
from outside import HERE, Program, left_behind, look_at, soon, until

ENOUGH = 1_000_000  # tasks that ten minutes must do
SLOWER = 0.9  # of the throughput of the first part, that of the last must be
MEGABYTES = 10.0  # by which memory may differ
SPARE = {"threads": 2, "descriptors": 12, "children": 2}  # by which these may
TICKS = os.sysconf("SC_CLK_TCK")


class Look(NamedTuple):
    """The program at one moment: seconds since its start, tasks done, seconds of its processor, and what it has."""

    at: float
    tasks: int
    cpu: float
    memory: float
    threads: int
    descriptors: int
    children: int


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    seconds = parser.parse_args(arguments).seconds
    with tempfile.TemporaryDirectory(prefix="parallelkit-soak-") as folder:
        program = Program([str(HERE / "soak_tasks.py"), folder])
        try:
            wrong = soak(program, Path(folder), seconds)
        finally:
            program.end()
    for what in wrong:
        say(f"  {what}")
    say("not flat, or not right" if wrong else "flat and right")
    return int(bool(wrong))


def soak(program: Program, folder: Path, seconds: float) -> list[str]:
    """Play, look, judge; one line for everything that is wrong."""
    before = look_at(program)
    until((folder / "counts").exists, 30.0)
    looks = [take_look(program, folder)]
    while looks[-1].at < seconds and program.process.poll() is None and not (folder / "over").exists():
        time.sleep(max(1.0, seconds / 300))
        looks.append(take_look(program, folder))
        if len(looks) % 15 == 2:
            show(looks[-1])
    (folder / "stop").touch()
    until(lambda: (folder / "over").exists() or program.process.poll() is not None, 30.0)
    if program.process.poll() is not None:
        return [f"the program ended with {program.process.returncode}: {program.err[-3000:]}"]
    total = sum(map(int, (folder / "counts").read_text().split()))
    wrong = [f"wrong: {line}" for line in (folder / "wrong").read_text().splitlines()[:5]]
    left = soon(lambda: left_behind(program, before, 0), [])
    wrong += [f"left behind: {what}" for what in left]  # type: ignore[attr-defined]
    (folder / "leave").touch()
    finished = program.wait(10)
    wrong += [f"exit code {finished.code}: {finished.err[-2000:]}"] if finished.code else []
    say(
        f"{total:,} tasks in {looks[-1].at:.0f} s; each had the outcome that it should have, but for {len(wrong)}"
    )
    if seconds >= 600 and total < ENOUGH:
        wrong.append(f"fewer than {ENOUGH:,}")
    return wrong + judge(looks, seconds)


def judge(looks: Sequence[Look], seconds: float) -> list[str]:
    """Compare the last part with the first, after some time to warm up."""
    part = min(60.0, seconds / 5)
    warm = min(30.0, seconds / 6)
    first = [look for look in looks if warm <= look.at <= warm + part]
    last = [look for look in looks if look.at >= looks[-1].at - part]
    wrong = []
    for name in ("memory", "threads", "descriptors", "children"):
        early, late = median_of(first, name), median_of(last, name)
        say(f"{name}: {early:.0f} at first, {late:.0f} at last")
        if late > early + SPARE.get(name, MEGABYTES):
            wrong.append(f"{name} grew from {early:.0f} to {late:.0f}")
    by_time = compare("tasks a second", first, last, lambda look: look.at)
    by_cpu = compare("tasks a second of the parent's processor", first, last, lambda look: look.cpu)
    # Where something else takes the processor away, only the second can tell whether we have slowed down.
    if max(by_time, by_cpu) < SLOWER:
        wrong.append(f"the last part was slower than the first: {by_time:.0%}")
    return wrong


def median_of(looks: Sequence[Look], name: str) -> float:
    return median(getattr(look, name) for look in looks)


def compare(what: str, first: Sequence[Look], last: Sequence[Look], clock: Callable[[Look], float]) -> float:
    early, late = rate(first, clock), rate(last, clock)
    say(f"{what}: {early:,.0f} at first, {late:,.0f} at last ({late / early:.0%})")
    return late / early


def rate(looks: Sequence[Look], clock: Callable[[Look], float]) -> float:
    return (looks[-1].tasks - looks[0].tasks) / (clock(looks[-1]) - clock(looks[0]))


def take_look(program: Program, folder: Path) -> Look:
    pid = program.pid
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Look(
        at=time.monotonic() - program.began,
        tasks=sum(map(int, (folder / "counts").read_text().split())),
        cpu=(int(fields[11]) + int(fields[12])) / TICKS,
        memory=int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6,
        threads=len(os.listdir(f"/proc/{pid}/task")),
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
        children=len(program.descendants()),
    )


def show(look: Look) -> None:
    say(
        f"{look.at:4.0f} s {look.tasks:>11,} tasks {look.memory:6.1f} MB {look.threads:3} threads "
        f"{look.descriptors:3} descriptors {look.children:2} children"
    )


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  # it is a program


if __name__ == "__main__":
    leaks.become_subreaper()
    sys.exit(main())
