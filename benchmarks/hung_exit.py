"""How long does an interpreter take to exit, when one of its threads hangs?

The program gives up on the call after 0.2 s, prints that, and has no more to do.
"""

from __future__ import annotations

from benchmarks._question import OURS, Figures, Question, Run, expect
from benchmarks._scripts import programs

PATIENCE = 5.0
HANG = """
import time
def hang(seconds): time.sleep(seconds)
"""

PROGRAMS = {
    OURS: """
from parallelkit import run_parallel
results = run_parallel(hang, [3600], timeout=0.2)
print("TaskTimeout" in str(results.failures), flush=True)
""",
    "ThreadPoolExecutor": """
from concurrent.futures import ThreadPoolExecutor
future = ThreadPoolExecutor(1).submit(hang, 3600)
try:
    future.result(timeout=0.2)
except TimeoutError:
    print(True, flush=True)
""",
    "asyncio.to_thread": """
import asyncio
async def main():
    try:
        await asyncio.wait_for(asyncio.to_thread(hang, 3600), 0.2)
    except TimeoutError:
        print(True, flush=True)
asyncio.run(main())
""",
    "joblib threading": """
import multiprocessing
from joblib import Parallel, delayed
try:
    Parallel(2, backend="threading", timeout=0.2)([delayed(hang)(3600)])
except (TimeoutError, multiprocessing.TimeoutError):
    print(True, flush=True)
""",
    "pebble ThreadPool": """
from pebble import ThreadPool
pool = ThreadPool(1)
try:
    pool.schedule(hang, (3600,)).result(timeout=0.2)
except TimeoutError:
    print(True, flush=True)
""",
}


def after_the_line(run: Run, case: None) -> Figures:
    course = run()
    expect("what it printed", "True", course.line)
    return {"s to exit": course.to_end - course.to_line}


QUESTION = Question(
    asks=__doc__ or "",
    systems=programs({name: HANG + program for name, program in PROGRAMS.items()}, PATIENCE),
    cases={"one thread hangs": None},
    measure=after_the_line,
    unit="s to exit",
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
