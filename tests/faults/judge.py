"""Run cases in a separate interpreter, and judge their results from outside."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import leaks
from cases import COUNT, Case
from deeds import BAD
from outside import GRACE, HERE, Program, left_behind, look_at, soon, until

EXIT = GRACE
"""Seconds within which an interpreter must exit after its last case."""

START = 30.0
"""Seconds within which an interpreter must have started; this time is not judged."""


def patience() -> float:
    """The factor by which all limits are longer if rounds.py keeps every core busy."""
    return float(os.environ.get("PARALLELKIT_FAULTS_PATIENCE", "1"))


class Stage:
    """An interpreter (stage.py) that runs one case after another; it is replaced when a case breaks it."""

    def __init__(self) -> None:
        self._open()

    def _open(self) -> None:
        self._line, theirs = socket.socketpair()
        with theirs:
            argv = [str(HERE / "stage.py"), str(theirs.fileno())]
            self.program = Program(argv, pass_fds=[theirs.fileno()])
        self._received = b""
        self._entered = False

    def enter(self) -> bool:
        """Wait until it has started, so that neither what it opens nor the time it takes is held against a case."""
        self._entered = self._entered or self._hear(START) is not None
        return self._entered

    def judge(self, case: Case) -> list[str]:
        """Run a case; return one line for everything that is wrong."""
        assert self.enter(), f"the interpreter did not start within {START} s: {self.program.err[-2000:]}"
        with tempfile.TemporaryDirectory(prefix="parallelkit-") as folder:
            before = look_at(self.program)
            self._line.sendall(json.dumps([case.id, folder]).encode() + b"\n")
            if case.number is not None:
                until(lambda: Path(folder, "here").exists())
                self.program.process.send_signal(case.number)
                if case.number != signal.SIGINT:
                    return self._end_of(case)
            report = self._hear(case.within * patience())
            if report is None:
                shown = f"no report within {case.within} s\n{self.program.out[-2000:]}\n{self.program.err[-4000:]}"
                self.restart()
                return [shown]
            runs = Path(folder, "runs")
            began = Counter(map(int, runs.read_text().split())) if runs.exists() else Counter()
            left = soon(lambda: left_behind(self.program, before, case.abandons), [], GRACE * patience())
            assert isinstance(left, list)
            return [*verdict(case, report, began), *(f"left behind: {what}" for what in left)]

    def _end_of(self, case: Case) -> list[str]:
        """Check the end of a program that was sent a fatal signal: all its descendants must end, too."""
        try:
            code = self.program.process.wait(EXIT * patience())
        except subprocess.TimeoutExpired:
            code = None
        wrong = [f"exit code {code}"] if code != -(case.number or 0) else []
        left = soon(self.program.descendants, [], GRACE * patience())
        assert isinstance(left, list)
        wrong += [f"left after the end: {leaks.describe_process(pid)}" for pid in left]
        self.restart()
        return wrong

    def _hear(self, limit: float) -> dict[str, Any] | None:
        deadline = time.monotonic() + limit
        while b"\n" not in self._received:
            ready, _, _ = select.select([self._line], [], [], max(0.0, deadline - time.monotonic()))
            got = self._line.recv(1 << 20) if ready else b""
            if not got:
                return None
            self._received += got
        told, _, self._received = self._received.partition(b"\n")
        report: dict[str, Any] = json.loads(told)
        return report

    def close(self) -> list[str]:
        """End the interpreter; return one line for everything that is wrong with its exit."""
        self.enter()  # after a restart it may not have started yet
        self._line.close()
        began = time.monotonic()
        try:
            self.program.process.wait(10)
        except Exception:
            wrong = ["the interpreter does not exit"]
        else:
            took, code = time.monotonic() - began, self.program.process.returncode
            wrong = [f"the exit took {took:.2f} s"] if took > EXIT * patience() else []
            wrong += [f"exit code {code}: {self.program.err[-2000:]}"] if code else []
        left = soon(self.program.descendants, [])
        wrong += [f"left after the end: process {pid}" for pid in left]  # type: ignore[attr-defined]  # a list
        self.program.end()
        return wrong

    def restart(self) -> None:
        self._line.close()
        self.program.end()
        self._open()


def verdict(case: Case, report: dict[str, Any], began: Counter[int]) -> list[str]:
    """What is wrong with the outcomes, and with how often each task began."""
    outcomes: dict[Any, Any] = dict(report["outcomes"])
    if case.partly:  # the input may be endless
        outcomes = {key: outcome for key, outcome in outcomes.items() if key == "raised" or key < COUNT}
        began = Counter({number: times for number, times in began.items() if number < COUNT})
    wrong = []
    raised = outcomes.pop("raised", None)
    raises = case.raises if isinstance(case.raises, tuple) else (case.raises,)
    if (raised and raised["type"]) not in raises:
        wrong.append(f"the call raised {raised}")
    if not (set(outcomes) <= set(range(COUNT)) if case.partly else set(outcomes) == set(range(COUNT))):
        wrong.append(f"the keys are {sorted(outcomes)}")
    bad = outcomes.pop(BAD, None) if case.wants else None
    if bad is not None:
        mismatches = [wanted.mismatch(bad) for wanted in case.wants]
        if all(mismatches):
            wrong.append(" and ".join(map(str, mismatches)))
        if began.pop(BAD, 0) not in case.runs:
            wrong.append(f"the bad task did not run {case.runs} times")
    struck = {key for key, outcome in outcomes.items() if outcome.get("type") in case.also}
    if len(struck) > case.most:
        wrong.append(f"{len(struck)} others were struck: {outcomes[min(struck)]}")
    innocent = {key: outcome for key, outcome in outcomes.items() if key not in struck}
    others = [what for key, outcome in innocent.items() if (what := mistake(key, outcome, report["wanted"]))]
    wrong += others[:1] + ([f"and {len(others) - 1} more of the others"] if others[1:] else [])
    if any(count != 1 for count in began.values()) or not set(innocent) <= set(began) <= set(outcomes):
        wrong.append(f"runs: {dict(began)}")
    return wrong


def mistake(key: int, outcome: dict[str, Any], sample: str) -> str | None:
    """What is wrong with the outcome of a well-behaved task; ``sample`` is the value of task 0."""
    wanted = f"[{key * 3}" + sample.removeprefix("[0")
    right = outcome["ok"] and outcome["shown"] == wanted
    return None if right else f"task {key}: wanted {wanted}, got {outcome}"


def judge_alone(case: Case) -> list[str]:
    """Run a case in an interpreter of its own, and judge that interpreter's exit, too."""
    stage = Stage()
    try:
        wrong = stage.judge(case)
    finally:
        ending = stage.close()
    return wrong + ending


assert os.name == "posix", "the judge reads /proc"
