"""Count the tokens of every Python file below a directory, in processes.

A script as one writes it: there is no main guard, and what runs in the workers stands in the script
itself. Two tasks go wrong, as a segfault and an endless loop would: one kills its own process, one
never ends.
"""

import os
import signal
import sys
import threading
import time
import tokenize
from pathlib import Path

from parallelkit import run_parallel

ROOT = Path(sys.argv[1])
TIMEOUT = 2  # seconds for one file; the largest takes a tenth of one
PATIENCE = 12  # seconds for counting one by one: a very slow machine counts fewer files, and says so


def python_files() -> list[str]:
    """Every Python file below the directory, but for packages that were installed there."""
    paths = (path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
    return sorted(path.as_posix() for path in paths if not path.parts[0].endswith("-packages"))


def count_tokens(name: str) -> int:
    """How many tokens a file has."""
    with open(ROOT / name, "rb") as file:
        return sum(1 for _ in tokenize.tokenize(file.readline))


def count_or_break(name: str) -> int:
    """The same, but for two files."""
    if name == "__future__.py":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "antigravity.py":
        threading.Event().wait()
    return count_tokens(name)


began = time.monotonic()
expected = {}
for name in python_files():
    try:
        expected[name] = count_tokens(name)
    except SyntaxError:
        print(f"  left out, as its encoding is broken on purpose: {name}")
    if time.monotonic() > began + PATIENCE:
        print(f"  left out, as {PATIENCE} seconds are over: all files after {name}")
        break
sequential = time.monotonic() - began

results = run_parallel(
    count_or_break,
    list(expected),
    key=str,
    executor="processes",
    timeout=TIMEOUT,
    progress={"desc": "  count", "unit": "file", "mininterval": 1, "disable": False},
)

failures = {name: type(failure.error).__name__ for name, failure in results.failures.items()}
equal = sum(tokens == expected[name] for name, tokens in results.successes.items())
print(f"  {sum(expected.values()):,} tokens: counted one by one in {sequential:.1f} s,", end=" ")
print(f"in processes in {results.summary.wall:.1f} s, a hang of {TIMEOUT} s included\n")
for name, failure in results.failures.items():
    print(f"  {name}: {failure.error}")
print(
    f"\n{len(expected):,} files: {equal:,} equal the sequential count, {len(failures)} failures:",
    ", ".join(failures.values()),
)
promised = {"__future__.py": "WorkerDied", "antigravity.py": "TaskTimeout"}
if failures != promised or equal != len(expected) - 2:
    sys.exit(f"  promised were two failures, {promised}, and all else equal; got {equal} and {failures}")
