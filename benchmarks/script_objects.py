"""What does a task cost in two processes, whose item or result is an object of a class that the script defines?

The class and the functions belong to ``__main__``, as in a script or a notebook. Pools that fork find them there; to workers that are
fresh interpreters they are sent.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from benchmarks._processes import POOLS, parallelkit
from benchmarks._question import LIMITS, OURS, Figures, Question, Run, expect, stopwatch

TASKS = 5_000

SCRIPT = """
from dataclasses import dataclass

@dataclass
class Order:
    number: int
    customer: str
    price: float

def price_of(order):
    return order.price

def order_of(number):
    return Order(number, f"customer {number}", number / 7)

def doubled(order):
    return Order(order.number, order.customer, 2 * order.price)
"""

CASES = {"items": "price_of", "results": "order_of", "items and results": "doubled"}

PEERS = (
    "for loop",
    "ProcessPoolExecutor.map",
    "ProcessPoolExecutor.map, chunked",
    "multiprocessing Pool.map",
    "joblib",
    "joblib, chunked",
    "loky",
    "loky, chunked",
    "mpire",
    "pebble ProcessPool.map",
    "pebble ProcessPool.map, chunked",
)


def script() -> dict[str, Any]:
    """The names of the main module, to which those of the script are added."""
    names = vars(sys.modules["__main__"])
    if "Order" not in names:
        exec(SCRIPT, names)
    return names


def cost_per_task(run: Run, name: str) -> Figures:
    names = script()
    items = [names["order_of"](number) if name != "order_of" else number for number in range(TASKS)]
    seconds, values = stopwatch(lambda: run(names[name], items))
    expect("results", TASKS, len(values))
    expect("the last result", names[name](items[-1]), values[-1])
    return {"µs a task": seconds / TASKS * 1e6}


def number_of(item: Any) -> int:
    """The key of an item; the items of ``order_of`` are numbers."""
    return getattr(item, "number", item)


def opened(pool: Any) -> Any:
    """Open a pool once its forks can find the script's names."""
    script()
    return pool(2)


QUESTION = Question(
    asks=__doc__ or "",
    systems={
        OURS: partial(opened, partial(parallelkit, key=number_of)),
        **{name: partial(opened, POOLS[name]) for name in PEERS},
    },
    cases=CASES,
    measure=cost_per_task,
    yardsticks=LIMITS,
    unit="µs a task",
    rounds=7,
    quick_rounds=5,
    log=True,
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
