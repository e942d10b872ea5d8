"""Short and long tasks, errors, deaths, hangs and large values, all at once in two runs on one engine."""

import random
from collections import Counter
from functools import partial
from threading import Thread

import pytest
import remote_tasks as far
from port_driver import Seen, opened, wait

from parallelkit._died import WorkerDied
from parallelkit._errors import TaskTimeout
from parallelkit._executors._processes import ProcessEngine

OFTEN = ["none"] * 60 + ["spin"] * 30 + ["nap"] * 8 + ["sleep"] * 2
SELDOM = ["raise", "leave", "hang", "long"]
ENDS = {"raise": ValueError, "leave": WorkerDied, "hang": TaskTimeout}
LIMIT = {"hang": 0.4}  # seconds; no other task may time out, however long the machine pauses


def deeds(seed, count):
    choose = random.Random(seed)
    return [choose.choice(SELDOM) if choose.random() < 0.01 else choose.choice(OFTEN) for _ in range(count)]


@pytest.mark.parametrize(
    ("seed", "count"),
    [(0, 300), *(pytest.param(seed, 5000, marks=pytest.mark.all) for seed in range(1, 11))],
)
def test_every_task_of_both_runs_has_its_own_fate(tmp_path, seed, count):
    """Each task runs once and has the outcome of what it did, whatever the tasks beside it do."""
    engine = ProcessEngine(2)
    seen = {}
    plans = {name: deeds(f"{name}{seed}", count) for name in ("left", "right")}

    def run(name, exact):
        items = list(enumerate(plans[name]))
        with opened(engine, partial(far.anything, str(tmp_path / name)), exact=exact) as port:
            seen[name] = drive(port, items)

    threads = [Thread(target=run, args=("left", False)), Thread(target=run, args=("right", seed % 3 == 0))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        engine.close()
    for name, plan in plans.items():
        judge(seen[name], plan, tmp_path / name)


def drive(port, items):
    seen, given = Seen(), 0
    while len(seen) < len(items):
        more = min(port.room(), len(items) - given)
        port.start(
            [
                (index, 1, items[index], LIMIT.get(items[index][1], 50.0))
                for index in range(given, given + more)
            ]
        )
        given += more
        seen.add(wait(port))
    return seen


def judge(seen, plan, path):
    begun = Counter(int(line) for line in path.read_text().split())
    assert {1} == set(begun.values()), "a task ran twice"
    assert set(range(len(plan))) == set(begun) == set(seen.values) | set(seen.failures)
    for number, deed in enumerate(plan):
        if deed in ENDS:
            assert isinstance(seen.failures[number].error, ENDS[deed]), (number, deed)
        else:
            assert (number, "x" * 400_000 if deed == "long" else None) == seen.values[number]
