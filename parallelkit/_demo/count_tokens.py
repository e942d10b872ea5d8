"""Count the tokens of every Python file below a directory, in processes.

A script as users write them: without a main guard, and with the functions that run in the workers in
the script itself. Two tasks go wrong as with a segfault and an endless loop: one kills its own process,
one never ends.
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
TIMEOUT = 2  # seconds for one file; the largest takes a tenth of a second
PATIENCE = 12  # seconds for the sequential count; on a very slow machine it ends early, and says so


def python_files() -> list[str]:
    """Return every Python file below the directory, except those of packages installed there."""
    paths = (path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
    return sorted(path.as_posix() for path in paths if not path.parts[0].endswith("-packages"))


def count_tokens(name: str) -> int:
    """Count the tokens of a file."""
    with open(ROOT / name, "rb") as file:
        return sum(1 for _ in tokenize.tokenize(file.readline))


def count_or_break(name: str) -> int:
    """Count the tokens of a file, but go wrong for two files."""
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
        print(f"  left out, since it is invalid on purpose: {name}")
    if time.monotonic() > began + PATIENCE:
        print(f"  left out, since {PATIENCE} seconds are over: all files after {name}")
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
print(f"in processes in {results.summary.wall:.1f} s, including a hang of {TIMEOUT} s\n")
for name, failure in results.failures.items():
    print(f"  {name}: {failure.error}")
print(
    f"\n{len(expected):,} files: {equal:,} equal the sequential count, {len(failures)} failures:",
    ", ".join(failures.values()),
)
promised = {"__future__.py": "WorkerDied", "antigravity.py": "TaskTimeout"}
if failures != promised or equal != len(expected) - 2:
    sys.exit(
        f"  expected {promised} as the only failures, all other counts equal; got {failures}, {equal} are"
    )
