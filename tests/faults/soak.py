"""``make soak``: endless tasks, some of which fail, crash or hang; no resource may grow, and throughput must not fall.

One program runs two streams, one in processes and one in threads. One task in a hundred fails and is retried; in
processes, one in a thousand crashes or hangs. The program compares every outcome with the expected one. It is
observed from outside: its resources and throughput at the end are compared with those at the beginning.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))  # tests/, for what the tests share

import leaks
from outside import HERE, Program, left_behind, look_at, soon, until

ENOUGH = 1_000_000  # tasks that must be done in ten minutes
SLOWER = 0.9  # the throughput of the last part must be at least this share of that of the first
SHARED = 0.1  # if others use more CPUs than this on average, the machine is not ours alone
MEGABYTES = 10.0  # that memory may grow
SPARE = {"threads": 2, "descriptors": 12, "children": 2}  # that these may grow
TICKS = os.sysconf("SC_CLK_TCK")


class Look(NamedTuple):
    """The program at one moment: seconds since its start, tasks done, and resources in use.

    ``cpu`` is the CPU time of the program and its workers, ``others`` that of everything else, in seconds.
    ``memory`` is in MB.
    """

    at: float
    tasks: int
    cpu: float
    others: float
    memory: float
    threads: int
    descriptors: int
    children: int


CLOCKS: dict[str, Callable[[Look], float]] = {
    "tasks a second": lambda look: look.at,
    "tasks a second of a processor": lambda look: look.cpu,
}


class Player:
    """The running program, as seen from outside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = Program([str(HERE / "soak_tasks.py"), str(folder)])
        self._before = look_at(self.program)

    def look(self) -> Look:
        pid = self.program.pid
        children = self.program.descendants()
        cpu = sum(map(used_by, (pid, *children)))
        return Look(
            at=time.monotonic() - self.program.began,
            tasks=self.tasks(),
            cpu=cpu,
            others=used_in_all() - cpu,
            memory=int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6,
            threads=len(os.listdir(f"/proc/{pid}/task")),
            descriptors=len(os.listdir(f"/proc/{pid}/fd")),
            children=len(children),
        )

    def tasks(self) -> int:
        return sum(map(int, (self.folder / "counts").read_text().split()))

    def is_over(self) -> bool:
        """Whether it has ended, or its streams have stopped, as they do at the first wrong outcome."""
        return self.program.process.poll() is not None or (self.folder / "over").exists()

    def finish(self) -> list[str]:
        """Make it stop and exit; return one line for everything that is wrong."""
        (self.folder / "stop").touch()
        until(self.is_over, 30.0)
        if self.program.process.poll() is not None:
            return [f"the program ended with {self.program.process.returncode}: {self.program.err[-3000:]}"]
        wrong = [f"wrong: {line}" for line in (self.folder / "wrong").read_text().splitlines()[:5]]
        left = soon(lambda: left_behind(self.program, self._before, 0), [])
        wrong += [f"left behind: {what}" for what in left]  # type: ignore[attr-defined]  # a list
        (self.folder / "leave").touch()
        finished = self.program.wait(10)
        return wrong + ([f"exit code {finished.code}: {finished.err[-2000:]}"] if finished.code else [])


@contextmanager
def playing() -> Iterator[Player]:
    with tempfile.TemporaryDirectory(prefix="parallelkit-soak-") as folder:
        player = Player(Path(folder))
        try:
            until((player.folder / "counts").exists, 30.0)
            yield player
        finally:
            player.program.end()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    wrong = soak(parser.parse_args(arguments).seconds)
    for what in wrong:
        say(f"  {what}")
    say("not flat, or not right" if wrong else "flat and right")
    return int(bool(wrong))


def soak(seconds: float) -> list[str]:
    """Run the program, observe and judge it; return one line for everything that is wrong."""
    warm, part = min(30.0, seconds / 6), min(60.0, seconds / 5)
    with playing() as old:
        (looks,) = watch([old], seconds)
        if old.is_over():
            return [*old.finish(), f"it stopped after {looks[-1].at:.0f} s"]
        total, took = looks[-1].tasks, looks[-1].at
        first = [look for look in looks if warm <= look.at <= warm + part]
        last = [look for look in looks if look.at >= took - part]
        grown = judge_growth(first, last)
        slowed = [] if judge_pace(first, last) else judge_age(old, warm, part)
        wrong = old.finish()
    say(f"{total:,} tasks in {took:.0f} s; each had the outcome that it should have, but for {len(wrong)}")
    if seconds >= 600 and total < ENOUGH:
        wrong.append(f"fewer than {ENOUGH:,}")
    return wrong + grown + slowed


def watch(players: Sequence[Player], seconds: float) -> list[list[Look]]:
    """Look at all programs at intervals, for ``seconds`` or until one is over."""
    seen = [[player.look()] for player in players]
    end = time.monotonic() + seconds
    while time.monotonic() < end and not any(player.is_over() for player in players):
        time.sleep(max(1.0, seconds / 300))
        for player, looks in zip(players, seen, strict=True):
            looks.append(player.look())
            if len(looks) % 15 == 2:
                show(looks[-1])
    return seen


def judge_growth(first: Sequence[Look], last: Sequence[Look]) -> list[str]:
    """Compare the resources in the last part with those in the first; return one line for each that grew."""
    wrong = []
    for name in ("memory", "threads", "descriptors", "children"):
        early, late = median_of(first, name), median_of(last, name)
        say(f"{name}: {early:.0f} at first, {late:.0f} at last")
        if late > early + SPARE.get(name, MEGABYTES):
            wrong.append(f"{name} grew from {early:.0f} to {late:.0f}")
    return wrong


def judge_pace(first: Sequence[Look], last: Sequence[Look]) -> bool:
    """Whether it is as fast as at first, on a machine that is its own; if False, ``judge_age`` must decide."""
    kept = compare("tasks a second", {"at first": first, "at last": last}, lambda look: look.at)
    early, late = (
        (looks[-1].others - looks[0].others) / (looks[-1].at - looks[0].at) for looks in (first, last)
    )
    say(f"processors that others used: {early:.2f} at first, {late:.2f} at last")
    return kept >= SLOWER and max(early, late) <= SHARED


def judge_age(old: Player, warm: float, part: float) -> list[str]:
    """Compare it with a new program, side by side: whatever slows the machine down affects both."""
    say("others had the machine, or it is slower itself: judged beside a new program")
    with playing() as new:
        watch([new], warm)
        aged, fresh = watch([old, new], part)
        wrong = new.finish()
    parts = {"in the new": fresh, "in the old": aged}
    for what, clock in CLOCKS.items():
        kept = compare(what, parts, clock)
        if kept < SLOWER:
            wrong.append(f"the old one did fewer {what} than the new: {kept:.0%}")
    return wrong


def median_of(looks: Sequence[Look], name: str) -> float:
    return median(getattr(look, name) for look in looks)


def compare(what: str, parts: dict[str, Sequence[Look]], clock: Callable[[Look], float]) -> float:
    """The throughput of the second part divided by that of the first."""
    before, after = (
        (looks[-1].tasks - looks[0].tasks) / (clock(looks[-1]) - clock(looks[0])) for looks in parts.values()
    )
    shown = ", ".join(f"{rate:,.0f} {where}" for where, rate in zip(parts, (before, after), strict=True))
    say(f"{what}: {shown} ({after / before:.0%})")
    return after / before


def used_by(pid: int) -> float:
    """CPU seconds of a process, including its reaped children; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0  # by now they count for its parent
    return sum(map(int, fields[11:15])) / TICKS


def used_in_all() -> float:
    """Seconds that all CPUs together were busy, including time that the hypervisor gave to other machines."""
    total = Path("/proc/stat").read_text().split("\n")[0]
    user, nice, system, _, _, *interrupts_and_steal = map(int, total.split()[1:9])
    return (user + nice + system + sum(interrupts_and_steal)) / TICKS


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
