"""``Retry(max_time=…)`` for real: no retry starts late behind tasks that were read ahead, whoever runs them."""

import asyncio
import time

import pytest

from parallelkit import Retry, Task, run_parallel

IN_TIME = Retry(9, delay=0.03, max_time=0.1)
SOON = 0.3  # seconds; behind all that was read ahead it would be 0.45 at least


def fail_or_nap(item):
    """The first fails; the others keep their worker busy for longer than its ``max_time``."""
    if item == 0:
        raise OSError("down")
    time.sleep(0.15)


async def fail_or_nap_on_loop(item):
    if item == 0:
        raise OSError("down")
    await asyncio.sleep(0.15)


def fail_slowly(item):
    time.sleep(0.1)
    raise OSError("down")


def lateness(results):
    """Seconds from the first start of a task to its last, at most."""
    first = {}
    return max(one.started_at - first.setdefault(one.key, one.started_at) for one in results.attempts)


@pytest.mark.all
@pytest.mark.parametrize("form", [list, iter])
def test_no_retry_starts_late_behind_what_was_read_ahead(form):
    """It stood in the queue of the only worker behind every task of the input, and no clock looked there."""
    results = run_parallel(fail_or_nap, form(range(4)), max_workers=1, retries=IN_TIME)
    assert lateness(results) < SOON
    assert [0] == list(results.failures)


@pytest.mark.all
def test_no_retry_in_a_process_starts_late():
    """None is sent to a worker that has another before it."""
    policy = Retry(9, delay=0.001, max_time=0.15)
    results = run_parallel(fail_slowly, range(5), executor="processes", max_workers=1, retries=policy)
    assert lateness(results) < SOON
    assert 5 == len(results.failures)


@pytest.mark.parametrize("form", [list, iter])
@pytest.mark.all
def test_no_retry_of_a_coroutine_starts_late(form):
    """The places on the event loop are given away one by one as well."""
    results = run_parallel(fail_or_nap_on_loop, form(range(4)), max_workers=1, retries=IN_TIME)
    assert lateness(results) < SOON
    assert [0] == list(results.failures)


@pytest.mark.parametrize("form", [list, lambda tasks: dict(enumerate(tasks)), iter])
@pytest.mark.all
def test_a_max_time_of_a_task_s_own_holds_as_well(form):
    """Whether the tasks are all there or have yet to be read."""
    tasks = [Task(fail_or_nap, item, retries=IN_TIME if item == 0 else None) for item in range(4)]
    results = run_parallel(form(tasks), max_workers=1)
    assert lateness(results) < SOON
    assert [0] == list(results.failures)
