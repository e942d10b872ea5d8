import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

# What must stand in the output of each. Times are left out.
BY_ZERO = "division by zero" if sys.version_info >= (3, 14) else "integer division or modulo by zero"
EXPECTED = {
    "product_research": [
        "{'rating': 4.0, 'threads': ['Worth it?', 'It leaks'], 'videos': None, 'price': 189.5, 'verdict': 'buy'}",
        "videos: task 'videos' ran longer than its timeout of 1 s",
        "7 calls in 1.",
    ],
    "cpu_sweep": [
        "1 people a minute      –   0.33   0.05   0.01",
        "2 people a minute, 2 counters: the queue grows for ever",
    ],
    "legacy_for_loop": [
        f"nothing, as one account failed: {BY_ZERO}",
        f"no balance for A-013: {BY_ZERO}",
        "39 of 40 balances",
    ],
    "threadpoolexecutor_replaced": [
        "db-2 is up",
        "db-3: the call of check ran longer than its timeout of 0.2 s",
        "db-4 is up",
    ],
}
SLOW = {"cpu_sweep", "legacy_for_loop", "product_research"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.all if name in SLOW else ()) for name in EXPECTED]
)
def test_example_prints_what_it_promises(name):
    """Each example ends by itself and without a word on stderr, and its output is right."""
    for _ in range(3):  # on a busy machine a call may take longer than the timeout that is shown
        run = subprocess.run(
            [sys.executable, "-W", "error", EXAMPLES / f"{name}.py"],
            check=False,
            capture_output=True,
            text=True,
            timeout=50,
        )
        assert (0, "") == (run.returncode, run.stderr)
        missing = [line for line in EXPECTED[name] if line not in run.stdout]
        if not missing:
            break
    assert [] == missing


def test_every_example_is_run():
    """No example is without a test; ``web_stand_in`` is a part of one."""
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*EXPECTED, "web_stand_in"}
