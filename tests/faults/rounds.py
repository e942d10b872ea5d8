"""``make faults``: run the whole fault catalogue repeatedly, on an idle machine and with all cores busy.

Each case runs in an interpreter of its own. Prints each failure as it happens, a line for each round, and at
the end how many of all runs were right.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # tests/, for what the tests share

import leaks
from cases import Case
from catalogue import CASES
from judge import judge_alone
from outside import refused_threads

SPIN = "while True: pass"


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    cases = [case for case in CASES if options.only in case.id]
    if "in an exit handler" in refused_threads():
        cases = [case for case in cases if case.caller != "shutdown"]
        say("without the cases that run in an exit handler: this Python starts no threads there")
    good = played = 0
    for number in range(1, options.rounds + 1):
        for state in options.states.split(","):
            with busy(state == "busy"):
                began = time.monotonic()
                right = play(cases)
            good, played = good + right, played + len(cases)
            took = time.monotonic() - began
            say(f"round {number} of {options.rounds}, {state}: {right}/{len(cases)} in {took:.0f} s")
    say(f"{good}/{played}")
    return int(good != played or not played)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="how often each case runs in each state")
    parser.add_argument("--states", default="idle,busy", help="of the machine: idle, busy, or idle,busy")
    parser.add_argument("--only", default="", help="run only the cases whose name contains this")
    return parser.parse_args(arguments)


def play(cases: Sequence[Case]) -> int:
    """Run the cases; return how many were right."""
    good = 0
    for case in cases:
        try:
            wrong = judge_alone(case)
        except AssertionError as error:
            wrong = [str(error)]
        good += not wrong
        for what in wrong:
            say(f"  {case.id}: {what[:1500]}")
    return good


@contextmanager
def busy(really: bool) -> Iterator[None]:
    """If ``really``, keep every core busy with another process during the block."""
    count = len(os.sched_getaffinity(0)) if really else 0
    os.environ["PARALLELKIT_FAULTS_PATIENCE"] = "2" if really else "1"  # read by judge.py and stage.py
    spinners = [subprocess.Popen([sys.executable, "-S", "-c", SPIN]) for _ in range(count)]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  # it is a program


if __name__ == "__main__":
    leaks.become_subreaper()
    sys.exit(main())
