"""Promise 8: waiting occupies no worker. Backoff, rate limits, caps and priorities are decided in the parent."""

import threading
from collections import Counter
from functools import partial

import acts
import pytest
import remote_tasks as far
from patience import given_time

from parallelkit import ConcurrencyLimit, RateLimit, Task, run_parallel

BOTH = pytest.mark.parametrize("executor", ["threads", "processes"])


@BOTH
@given_time
def test_backoff_frees_the_worker(executor, tmp_path, scale):
    """While a task waits for its retry, the only worker runs all others."""
    path = str(tmp_path / f"begun {scale}")
    results = run_parallel(
        partial(acts.fail_once, path=path, retry_after=0.4 * scale),
        range(10),
        executor=executor,
        max_workers=1,
        retries=1,
        order="completion",
    )
    assert [*map(str, range(10)), "0"] == [text for _, text in acts.lines(path)]
    assert [*range(1, 10), 0] == results.values()
    assert 2 == results.outcomes[0].attempts


def starts(results):
    return sorted(outcome.started_at for outcome in results.outcomes.values())


@BOTH
def test_rate_limit_holds_across_workers(executor):
    """There are never more than four starts in any window of 0.1 s, by the times at which the workers began."""
    results = run_parallel(
        far.give_back, range(14), executor=executor, max_workers=2, limits=RateLimit(4, per=0.1)
    )
    at = starts(results)

    assert [*range(14)] == results.values()
    for first, fifth in zip(at, at[4:], strict=False):
        assert fifth - first >= 0.1
    assert at[-1] < 5


@BOTH
@given_time
def test_limited_group_holds_up_no_other(executor, scale):
    """While one group waits for its rate limit, a single worker runs the tasks of the other."""
    results = run_parallel(
        far.give_back,
        ["slow"] * 3 + ["free"] * 8,
        executor=executor,
        max_workers=1,
        limits=RateLimit(1, per=0.15 * scale, by=lambda item: item if item == "slow" else None),
        order="completion",
    )
    assert ["free"] * 8 == [value for value in results.values() if value == "free"]
    assert "slow" == results.values()[-1]
    assert results.values().index("free") <= 1
    assert max(one.started_at for one in results.outcomes.values() if one.value == "free") < min(
        sorted(one.started_at for one in results.outcomes.values() if one.value == "slow")[1:]
    )


@BOTH
def test_cap_holds_across_workers(executor, tmp_path):
    """At most one task of each group runs at a time, while both groups run side by side."""
    path, items = str(tmp_path / "log"), [(group, number) for number in range(5) for group in "ab"]
    results = run_parallel(
        partial(acts.meet_no_other, path=path),
        items,
        executor=executor,
        max_workers=4,
        limits=ConcurrencyLimit(1, by=lambda item: item[0]),
        on_error="raise",
    )
    assert items == results.values()
    here, most = Counter(), Counter()
    for _, text in acts.lines(path):
        what, group = text.split()
        here[group] += 1 if what == "in" else -1
        most[group] = max(most[group], here[group])

    assert {"a": 1, "b": 1} == most
    assert {"a": 0, "b": 0} == here


@BOTH
def test_capped_task_occupies_no_worker(executor, tmp_path):
    """While a task waits for its group's cap, both workers serve other tasks."""
    path = str(tmp_path / "here")
    tasks = [
        Task(acts.meet, "group", path, 2),
        Task(acts.meet, "group", path, 1),
        Task(acts.meet, "x", path, 2),
    ]
    results = run_parallel(
        tasks,
        executor=executor,
        max_workers=2,
        timeout=20,
        limits=ConcurrencyLimit(1, by=lambda task: "group" if task.args[0] == "group" else None),
    )
    assert ["group", "group", "x"] == results.values()


@BOTH
def test_larger_priorities_run_first(executor, tmp_path):
    """With one worker, tasks start exactly in the order of their priority, even where the executor would batch them."""
    path = str(tmp_path / "begun")
    run_parallel(
        partial(acts.noted, path=path),
        [3, 1, 4, 1, 5, 9, 2, 6],
        executor=executor,
        max_workers=1,
        priority=lambda item: item,
    )
    assert ["9", "6", "5", "4", "3", "2", "1", "1"] == [text for _, text in acts.lines(path)]


def test_shared_rate_limit_is_shared():
    """Two concurrent runs that share a RateLimit keep it together."""
    limit, runs = RateLimit(3, per=0.1), []
    callers = [
        threading.Thread(target=lambda: runs.append(run_parallel(abs, range(6), limits=limit)))
        for _ in range(2)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    at = sorted(start for results in runs for start in results._ledger.started)  # on one clock

    assert 12 == len(at)
    assert min(later - first for first, later in zip(at, at[3:], strict=False)) >= 0.1
