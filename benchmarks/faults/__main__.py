"""``python -m benchmarks.faults``: which system survives which fault. Writes the table of docs/reliability.md.

Each case has twenty tasks, one of which misbehaves. It is run with each system in a process of its own, which has
a hard time limit and is killed with all its descendants. A system survives if the one task is reported as
failed (with any error; or has its value, where the case allows that), every other task has its value and has run
once, the program exits with 0, and no process is left.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.faults import _systems
from benchmarks.faults._table import ROOT, cases

BAD = 7
LIMIT = 12.0  # seconds, including the start of the interpreter; a case without trouble takes less than one
GRACE = 1.0  # seconds after the program's exit by which its descendants must be gone
MARK = "PARALLELKIT_FAULTS_OF_PEERS"
PAGE = ROOT / "docs" / "reliability.md"
PLACE = re.compile(r"(<!-- faults of peers: begin[^\n]*-->\n).*?(<!-- faults of peers: end -->)", re.DOTALL)
KEPT = ROOT / "benchmarks" / "results" / "faults.json"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument(
        "--only",
        default="",
        help="run only the cases whose name contains this; keep the earlier verdicts on the others",
    )
    parser.add_argument("--at-once", type=int, default=2, help="how many programs run at the same time")
    options = parser.parse_args(arguments)
    chosen = [case for case in cases() if options.only in case.id]
    plays = [(case, system) for case in chosen for system in systems_for(case)]
    with ThreadPoolExecutor(options.at_once) as pool:
        verdicts = list(pool.map(lambda play: judge(*play), plays))
    told: dict[str, dict[str, str]] = {}
    for (case, system), verdict in zip(plays, verdicts, strict=True):
        told.setdefault(case.id, {})[system] = verdict
    if options.only:
        told = {**json.loads(KEPT.read_text())["told"], **told}
    KEPT.write_text(json.dumps({"told": told, "source": source()}, indent=1) + "\n")
    fill()
    print(table(told))


def systems_for(case: Any) -> list[str]:
    return list(_systems.THREADS if case.executor == "threads" else _systems.PROCESSES)


def judge(case: Any, system: str) -> str:
    """Run one case with one system; return the verdict in a few words: "survives", or what went wrong."""
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.faults._play", system, case.id, folder],
            cwd=ROOT,
            env={**os.environ, MARK: mark, "PYTHONPATH": str(ROOT / "tests" / "faults")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            verdict = look(case, process, Path(folder), mark)
        finally:
            end(process, mark)
    print(f"  {case.id}: {system}: {verdict}", file=sys.stderr, flush=True)
    return verdict


def look(case: Any, process: subprocess.Popen[bytes], folder: Path, mark: str) -> str:
    try:
        code = process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        return "hangs at its exit" if (folder / "told").exists() else "hangs"
    if not (folder / "told").exists():
        return "the program dies" if code < 0 else f"the program ends with {code}"
    told = json.loads((folder / "told").read_text())
    runs = Counter((folder / "runs").read_text().split()) if (folder / "runs").exists() else Counter()
    wrong = what_is_wrong(case, told, runs)
    if wrong is None and code:
        wrong = f"the program ends with {code}"
    if wrong is None and outlive(mark):
        wrong = "leaves processes"
    return wrong or "survives"


def what_is_wrong(case: Any, told: dict[str, Any], runs: Counter[str]) -> str | None:
    """The worst deviation from what is wanted, or None."""
    outcomes = {int(key): outcome for key, outcome in told["outcomes"].items()}
    bad = outcomes.pop(BAD, None)
    right = [key for key, one in outcomes.items() if one["ok"] and one["shown"] == told["ordinary"][key]]
    spoilt = sum(one["ok"] for key, one in outcomes.items() if key not in right)
    if len(right) + spoilt < 19:
        return f"loses {19 - len(right)} others"
    if spoilt:
        return f"spoils {spoilt} others"
    if any(runs[str(key)] != 1 for key in right):
        return "runs others twice"
    if bad is None:
        return "loses the task"
    if not any(bad["ok"] == (wanted.type == "value") for wanted in case.wants):
        return f"tells of a {'value' if bad['ok'] else 'failure'}"
    return None


def outlive(mark: str) -> bool:
    """Whether a descendant of the program still runs GRACE seconds after the program's exit."""
    deadline = time.monotonic() + GRACE
    while marked(mark):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.01)
    return False


def marked(mark: str) -> list[int]:
    wanted = f"{MARK}={mark}".encode()
    found = []
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdigit() and wanted in Path(f"/proc/{name}/environ").read_bytes():
                found.append(int(name))
    return found


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def end(process: subprocess.Popen[bytes], mark: str) -> None:
    """Kill the program and all its descendants, including those that have left its process group.

    Resource trackers come last: once the others are gone, they remove their semaphores. After GRACE
    seconds they are killed as well.
    """
    deadline = time.monotonic() + GRACE
    while left := marked(mark):
        trackers = {pid for pid in left if b"resource_tracker" in command_of(pid)}
        for pid in left if time.monotonic() > deadline else set(left) - trackers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    process.wait()


def table(told: dict[str, dict[str, str]]) -> str:
    """Two tables, one for processes, one for threads: a row per case, a column per system."""
    parts = []
    for executor, systems in (("processes", _systems.PROCESSES), ("threads", _systems.THREADS)):
        rows = {name: told[name] for name in told if name.endswith(f"({executor})")}
        if not rows:
            continue
        head = [f"in {executor}: one task in twenty …", *systems]
        lines = [head, ["---"] * len(head)]
        lines += [
            [name.rpartition(" (")[0], *(cell(row[system]) for system in systems)]
            for name, row in rows.items()
        ]
        counts = [sum(row[system] == "survives" for row in rows.values()) for system in systems]
        lines.append([f"**survived, of {len(rows)}**", *(f"**{count}**" for count in counts)])
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts)


def cell(verdict: str) -> str:
    return "✓" if verdict == "survives" else verdict


def source() -> str:
    versions = []
    for name in ("parallelkit", "joblib", "loky", "mpire", "pebble", "tqdm"):
        with suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    return f"`python -m benchmarks.faults`, {date.today()}, Python {platform.python_version()}; {', '.join(versions)}"


def fill() -> None:
    """Write the tables into the page, between the marks."""
    kept = json.loads(KEPT.read_text())
    text = PAGE.read_text(encoding="utf-8")
    content = f"\n{table(kept['told'])}\n\n{kept['source']}\n\n"
    new, count = PLACE.subn(lambda place: place[1] + content + place[2], text)
    if count != 1:
        raise SystemExit(f"{PAGE} has {count} places for the table, not one")
    PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
