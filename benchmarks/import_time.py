"""How long does an import take, from a bare interpreter to its end?"""

from __future__ import annotations

from benchmarks._question import LIMITS, OURS, Figures, Question, Run
from benchmarks._scripts import programs

STANDARD = "both standard pools"


def whole_program(run: Run, case: None) -> Figures:
    return {"ms": run().to_end * 1e3}


QUESTION = Question(
    asks=__doc__ or "",
    systems=programs(
        {
            "nothing": "",
            OURS: "import parallelkit",
            f"{OURS}, run_parallel": "from parallelkit import run_parallel",
            STANDARD: "import concurrent.futures.thread, concurrent.futures.process",
            "asyncio": "import asyncio",
            "pebble": "import pebble",
            "loky": "import loky",
            "mpire": "import mpire",
            "joblib": "import joblib",
            "requests": "import requests",
        }
    ),
    cases={"a bare interpreter": None},
    measure=whole_program,
    yardsticks=LIMITS,
    unit="ms",
    rounds=15,
    quick_rounds=15,
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
