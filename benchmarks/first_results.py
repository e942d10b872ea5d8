"""How long from a bare interpreter to four results out of two processes, imports and all?"""

from __future__ import annotations

from benchmarks._question import OURS, Figures, Question, Run, expect
from benchmarks._scripts import programs

SQUARES = "[0, 1, 4, 9]"
FUNCTION = "def square(x): return x * x\n"

PROGRAMS = {
    OURS: """
from parallelkit import run_parallel
print(run_parallel(square, range(4), executor="processes", max_workers=2, timeout=60, retries=2).values(), flush=True)
""",
    "ProcessPoolExecutor, fork": """
from concurrent.futures import ProcessPoolExecutor
with ProcessPoolExecutor(2) as pool:
    print(list(pool.map(square, range(4))), flush=True)
""",
    "multiprocessing Pool, fork": """
from multiprocessing import Pool
with Pool(2) as pool:
    print(pool.map(square, range(4)), flush=True)
""",
    "pebble ProcessPool": """
from pebble import ProcessPool
with ProcessPool(2) as pool:
    print(list(pool.map(square, range(4)).result()), flush=True)
""",
    "loky": """
from loky import get_reusable_executor
print(list(get_reusable_executor(2).map(square, range(4))), flush=True)
""",
    "joblib": """
from joblib import Parallel, delayed
print(Parallel(2)(delayed(square)(item) for item in range(4)), flush=True)
""",
    "mpire": """
from mpire import WorkerPool
with WorkerPool(2) as pool:
    print(pool.map(square, range(4)), flush=True)
""",
}


def whole_program(run: Run, case: None) -> Figures:
    course = run()
    expect("what it printed", SQUARES, course.line)
    return {"ms to the results": course.to_line * 1e3, "ms to the exit": course.to_end * 1e3}


QUESTION = Question(
    asks=__doc__ or "",
    systems=programs({name: FUNCTION + program for name, program in PROGRAMS.items()}),
    cases={"a bare interpreter": None},
    measure=whole_program,
    unit="ms to the results",
    rounds=15,
    quick_rounds=5,
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
