"""Answers as JSON files, with what is needed to interpret them: machine, versions, date, command."""

from __future__ import annotations

import importlib
import json
import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks._ask import Answers
from benchmarks._question import Question

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PEERS = [
    "parallelkit", "aiohttp", "distributed", "httpx", "joblib", "loky", "mpire", "numpy", "pebble", "requests", "tqdm",
]  # fmt: skip


def names() -> list[str]:
    """The names of all questions: those of their files."""
    return sorted(path.stem for path in HERE.glob("[a-z]*.py"))


def module_of(name: str) -> str:
    return f"benchmarks.{name}"


def question(name: str) -> Question:
    asked: Question = importlib.import_module(module_of(name)).QUESTION
    return asked


def path_of(name: str) -> Path:
    return RESULTS / f"{name}.json"


def save(name: str, answers: Answers, rounds: int) -> None:
    """Write the answers to the question's file."""
    RESULTS.mkdir(exist_ok=True)
    path_of(name).write_text(json.dumps(as_json(name, answers, rounds), indent=1) + "\n", encoding="utf-8")


def as_json(name: str, answers: Answers, rounds: int) -> dict[str, Any]:
    asked = answers.question
    return {
        "asks": asked.asks,
        "command": f"python benchmarks/{name}.py --rounds {rounds}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "unit": asked.unit,
        "answers": {
            system: {case: answer for case in asked.cases if (answer := one(answers, (system, case)))}
            for system in asked.systems
        },
    }


def one(answers: Answers, place: tuple[str, str]) -> dict[str, Any]:
    """One system's answer in one case: the median of the question's unit, and every round."""
    rounds = list(answers.rounds.get(place, {}).values())
    answer: dict[str, Any] = {"median": answers.median(place), "rounds": rounds} if rounds else {}
    if place in answers.failures:
        answer["failure"] = answers.failures[place]
    return answer


def load(name: str) -> tuple[Answers, dict[str, Any]] | None:
    """The last answers to a question, and the content of their file; None if it was never asked."""
    if not path_of(name).exists():
        return None
    told = json.loads(path_of(name).read_text(encoding="utf-8"))
    answers = Answers(question(name))
    for system, cases in told["answers"].items():
        for case, answer in cases.items():
            if answer.get("rounds"):
                answers.rounds[system, case] = dict(enumerate(answer["rounds"], 1))
            if "failure" in answer:
                answers.failures[system, case] = answer["failure"]
    return answers, told


def machine() -> dict[str, Any]:
    """The machine that this runs on, and its load."""
    return {
        "cpu": cpu(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "load": round(os.getloadavg()[0], 2),
    }


def cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for peer in PEERS:
        try:
            found[peer] = metadata.version(peer)
        except metadata.PackageNotFoundError:
            continue
    return found
