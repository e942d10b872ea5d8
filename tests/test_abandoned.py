"""What becomes of the runs and calls for which an abandoned task waits, on the executor whose thread it occupies."""

import random
import threading
import time

import pytest
from patience import PATIENCE, wait_until

from parallelkit import RateLimit, TaskCancelled, ThreadExecutor, iter_parallel, run_parallel

ABANDONED = "the task that made this run was abandoned"


def pause(item):
    time.sleep(0.01)
    return item


MANY = range(10_000)  # pauses that take longer than ``PATIENCE``

WITHIN = {
    "a run": lambda executor: run_parallel(pause, MANY, executor=executor),
    "a stream": lambda executor: list(iter_parallel(pause, iter(MANY), executor=executor)),
    "calls": lambda executor: list(executor.map(pause, MANY)),
    "a run with limits": lambda executor: run_parallel(
        pause, MANY, executor=executor, limits=RateLimit(1, per=60)
    ),
    "a run in a run": lambda executor: run_parallel(WITHIN["a run"], [executor], executor=executor),
}


@pytest.fixture
def executor():
    with ThreadExecutor(2) as executor:
        yield executor
        wait_until(lambda: not executor._pool.abandoned)


def cut_short(executor, within, **options):
    """A run whose first task waits for something on the same executor, and is abandoned."""

    def outer():
        within(executor)

    def fails():
        wait_until(lambda: executor._pool.slots.loans or executor._pool.abandoned)
        raise OSError

    results = run_parallel([outer, fails], executor=executor, **options)
    assert [0, 1] == sorted(results.failures)


@pytest.mark.parametrize("within", WITHIN)
@pytest.mark.parametrize(
    "options",
    [{"run_timeout": 0.05}, {"timeout": 0.05}, {"max_failures": 1}],
    ids=lambda options: next(iter(options)),
)
def test_what_an_abandoned_task_waits_for_ends(executor, within, options):
    """What an abandoned task waits for ends, and with it the thread, which then costs no slot any more."""
    cut_short(executor, WITHIN[within], **options)
    wait_until(lambda: not executor._pool.abandoned)
    assert [1, 2] == run_parallel(abs, [-1, -2], executor=executor, run_timeout=PATIENCE).values()


def test_what_an_abandoned_task_waits_for_through_another_executor_ends(executor):
    """So does what it waits for through a run elsewhere, if that has begun here: of a later one nobody knows whose it is."""
    cut_short(executor, lambda executor: run_parallel(WITHIN["a run"], [executor]), max_failures=1)
    wait_until(lambda: not executor._pool.abandoned)


def test_stopped_runs_with_runs_within_cost_no_slot(executor):
    """However many are stopped one after the other, a run of somebody else is done: no slot is lost to runs without a slot."""
    for _ in range(4):
        cut_short(executor, WITHIN["a run"], run_timeout=0.05)
    assert [1, 2] == run_parallel(abs, [-1, -2], executor=executor, run_timeout=PATIENCE).values()


def test_an_abandoned_task_is_told_so(executor):
    """The run within it is stopped and says why, and so are those that the task makes later; no call is waited for."""
    told, go = [], threading.Event()

    def within(executor):
        told.append(run_parallel(pause, MANY, executor=executor).stopped)
        told.append(run_parallel(abs, [-1], executor=executor).stopped)
        call = executor.submit(go.wait, PATIENCE)
        with pytest.raises(TaskCancelled, match="the task that waits for this call was abandoned"):
            call.result()
        told.append(call)

    cut_short(executor, within, max_failures=1)
    wait_until(lambda: len(told) == 3)
    assert [ABANDONED] * 2 == told[:2]
    go.set()
    assert told[2].result(PATIENCE)


def test_an_abandoned_task_waits_for_no_call_that_runs(executor):
    """It is woken, and told so, though the call goes on."""
    go, told = threading.Event(), threading.Event()

    def within(executor):
        call = executor.submit(go.wait, PATIENCE)
        with pytest.raises(TaskCancelled, match="was abandoned"):
            call.result()
        told.set()

    cut_short(executor, within, max_failures=1)
    try:
        assert told.wait(PATIENCE)
    finally:
        go.set()


@pytest.mark.all
def test_a_call_for_which_an_abandoned_task_waits_is_made(executor):
    """Whoever else waits for it gets its value, or waits as long as was asked for."""
    go, calls, waited = threading.Event(), [], []

    def within(executor):
        calls.append(executor.submit(go.wait, PATIENCE))
        for other in others:
            other.start()
        calls[0].result()

    def wait_a_little():
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            calls[0].result(0.2)
        waited.append(time.monotonic() - began)

    def wait():
        waited.append(calls[0].result(PATIENCE))

    others = [threading.Thread(target=target) for target in (wait_a_little, wait)]
    cut_short(executor, within, max_failures=1)
    others[0].join(PATIENCE)
    go.set()
    others[1].join(PATIENCE)
    assert waited[0] >= 0.2
    assert waited[1:] == [True]


def test_who_waits_no_longer_takes_back_its_own_slot_only(executor):
    """Another task that waits for the same call still lends its slot, and the call can wait for calls of its own."""
    gave_up, done, calls = threading.Event(), threading.Event(), []

    def shared():
        assert gave_up.wait(PATIENCE)
        return executor.submit(abs, -1).result(PATIENCE / 3)

    def waits():
        calls.append(executor.submit(shared))
        return calls[0].result(PATIENCE)

    def waits_a_little():
        wait_until(lambda: executor._pool.slots.loans)
        with pytest.raises(TimeoutError):
            calls[0].result(0.02)
        gave_up.set()
        assert done.wait(PATIENCE)

    tasks = executor.submit(waits), executor.submit(waits_a_little)
    try:
        assert 1 == tasks[0].result(PATIENCE)
    finally:
        done.set()


def random_run(rng, executor, limit):
    """A run with runs within, on the same executor and with the same limit, that is stopped at random."""

    def task(depth):
        if rng.random() < 0.05:
            raise OSError
        within = [depth - 1] * 2 if depth else []
        return sum(run_parallel(task, within, executor=executor, limits=limit).values(default=0))

    options = rng.choice([{"run_timeout": rng.random() * 0.2}, {"max_failures": 1}, {"timeout": 0.05}, {}])
    if rng.random() < 0.5:
        run_parallel(task, [2] * 4, executor=executor, limits=limit, **options)
        return
    for _ in iter_parallel(task, iter([2] * 4), executor=executor, limits=limit, **options):
        if rng.random() < 0.2:
            break


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.all) for seed in range(1, 60))])
def test_runs_within_runs_that_are_stopped_at_random_all_end(seed):
    """Runs within runs that are stopped at random all end, and none of them costs the executor a slot."""
    rng = random.Random(seed)
    limit = RateLimit(rng.randint(1, 3), per=0.01)
    with ThreadExecutor(rng.randint(1, 3)) as executor:
        callers = [threading.Thread(target=random_run, args=(rng, executor, limit)) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(PATIENCE)
        assert not any(caller.is_alive() for caller in callers)
        results = run_parallel(abs, [-1, -2], executor=executor, limits=limit, run_timeout=PATIENCE)
        assert [1, 2] == results.values()
        wait_until(lambda: not executor._pool.abandoned)
