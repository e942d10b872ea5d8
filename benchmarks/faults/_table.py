"""The cases to run, selected from the fault catalogue of the tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
FAULTS = ROOT / "tests" / "faults"


def cases() -> list[Any]:
    """The core cases that need nothing but a function and its items, so that every system can run them."""
    sys.path[:0] = [str(FAULTS)] if str(FAULTS) not in sys.path else []
    from catalogue import CASES  # type: ignore[import-not-found]

    return [
        case
        for case in CASES
        if case.core
        and case.caller == "plain"
        and case.executor in ("processes", "threads")
        and case.options is None
    ]


def case_of(name: str) -> Any:
    (found,) = [case for case in cases() if case.id == name]
    return found
