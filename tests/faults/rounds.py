"""``make faults``: the whole catalogue, again and again, on an idle machine and on one whose cores are all busy.

Each case is played in an interpreter of its own. Prints what went wrong as it happens, a line for each
round, and at the end how many of how many were as they should be.
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
        say("without those that run in an exit handler: this Python starts no threads there")
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
    parser.add_argument("--rounds", type=int, default=10, help="how often each case is played in each state")
    parser.add_argument("--states", default="idle,busy", help="of the machine: idle, busy, or both")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    return parser.parse_args(arguments)


def play(cases: Sequence[Case]) -> int:
    """How many were as they should be."""
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
    """Something else keeps every core busy."""
    count = len(os.sched_getaffinity(0)) if really else 0
    os.environ["PARALLELKIT_FAULTS_PATIENCE"] = "2" if really else "1"  # judge.py, stage.py
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
