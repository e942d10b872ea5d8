"""Each item of the advice speaks on a run that needs it, with figures, and is silent on one that does not."""

import pickle
import threading
import time
from itertools import count

import pytest
from planted import BEGAN, cut_off, fail, plant, retry

from parallelkit import RateLimit, Results, Retry, TaskTimeout, ThreadExecutor, run_parallel
from parallelkit._died import WorkerDied
from parallelkit._executors._contract import timed_out
from parallelkit._lost import Lost
from parallelkit._report import _coroutines, _slow, _wasted, _width
from parallelkit._report._advice import LOOKS, advise
from parallelkit._report._summary import survey


def advice_on(ledger):
    return advise(survey(ledger))


def only(ledger, look):
    """The one piece of advice on a run, which must be that of ``look``."""
    run = survey(ledger)
    spoke = [each for each in LOOKS if each(run) is not None]
    assert [look] == spoke
    return look(run)


# Silence


HEALTHY = {
    "calls in threads": plant([0.2] * 80, cpu_seconds=0.3),
    "calls in threads, of mixed length": plant([0.1, 0.2, 0.4, 0.8] * 20, cpu_seconds=0.3),
    "as many workers as tasks": plant([2.0, 1.9, 2.1], workers=3, cpu_seconds=0.01),
    "computing in processes": plant([0.05] * 400, workers=4, executor="processes", cpu_seconds=0.2),
    "processes, and a parent that computes": plant([0.8] * 80, executor="processes", cpu_seconds=8.0),
    "arrays in threads, without the lock": plant([0.05] * 400, workers=4, cpu_seconds=10.0),
    "threads that compute, without the interpreter lock": plant(
        [0.8] * 80, cpu_seconds=8.0, one_at_a_time=False
    ),
    "one by one": plant([0.1] * 20, workers=1, executor="inline", cpu_seconds=2.0),
    "one by one, one of them long": plant([10.0] + [0.1] * 20, workers=1, executor="inline"),
    "one by one, from a slow input": plant([0.1] * 20, 1, executor="inline", pause=0.5, input_seconds=8.0),
    "a quick input": plant([0.1] * 100, input_seconds=0.2),
    "a limit that lets all workers run": plant([0.1] * 100, limits=("RateLimit(1000, per=1)",)),
    "tiny": plant([0.00001] * 100, executor="processes", ended_at=BEGAN + 0.05),
    "tiny, in threads": plant([0.00001] * 20_000, ended_at=BEGAN + 2),
    "a long task in a longer run": plant([2.0] + [0.1] * 20, ended_at=BEGAN + 5),
    "one task with threads of its own": plant([8.0], 1, cpu_seconds=32.0, worker_cpu_seconds=4.0),
    "runs of threads within tasks": plant([0.8] * 80, cpu_seconds=32.0, worker_cpu_seconds=3.2, alone=False),
    "threads of the tasks' own that do little": plant([0.8] * 80, cpu_seconds=3.0, worker_cpu_seconds=0.5),
    "one coroutine": plant([5.0], coroutines=True, blocked_seconds=3.0, longest_step=2.0, longest_step_of=0),
    "empty": plant([]),
    "a blink, most of it one task": plant([0.05] + [0.001] * 20),
    "a blink, most of it a wait": plant([0.01] * 4, pause=0.02, limits=("RateLimit(1, per=0.02)",)),
    "a blink, most of it pickling": plant([0.005] * 4, executor="processes", travel_seconds=0.02),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_needs_no_advice(name):
    """Where nothing could be gained, nothing is said."""
    assert [] == advice_on(HEALTHY[name])


def test_a_run_of_which_nothing_began_needs_no_advice():
    """A run without an attempt gets no advice."""
    ledger = plant([0.0] * 3)
    ledger.stopped = "run_timeout"
    ledger.cancel(range(3), {})
    assert [] == advice_on(ledger)


# What made it slow


def test_tasks_that_compute_belong_into_processes():
    """8 s of processor time in 8 s on 4 processors: 2 s, and a tenth until the workers are up; imports nobody can foretell."""
    advice = only(plant([0.8] * 80, cpu_seconds=8.0), _slow.cpu_bound_threads)
    cure = 'executor="processes" would take about 2.1 s on 4 processors, once its workers have imported what the tasks use.'
    assert cure == advice.cure
    assert "8 threads used 8.00 s of processor time in 8.00 s" in advice.cause
    assert pytest.approx(5.9) == advice.saves


def test_processes_are_not_promised_to_split_a_task():
    """A task with a third of the 8 s of processor time takes 2.7 s in a process, too."""
    advice = _slow.cpu_bound_threads(survey(plant([8.0] + [0.8] * 20, cpu_seconds=8.0)))
    assert 'executor="processes" would take about 2.8 s' in advice.cure


def test_coroutines_that_compute_cannot_go_into_processes_as_they_are():
    """The cure is to make plain functions of them first."""
    advice = only(plant([0.8] * 80, cpu_seconds=8.0, coroutines=True), _slow.cpu_bound_threads)
    assert advice.cure.startswith('Plain functions with executor="processes" would take about 2.1 s')
    assert "8 coroutines used" in advice.cause


def test_computing_on_one_processor_is_as_fast_in_threads():
    """Processes cannot compute faster than the processors there are."""
    assert [] == advice_on(plant([0.8] * 80, cpu_seconds=8.0, cpus=1))


def test_the_workers_own_processor_time_is_better_evidence():
    """Where others compute while the threads wait, processes would not help."""
    ledger = plant([0.8] * 80, cpu_seconds=8.0, worker_cpu_seconds=0.4)
    assert _slow.cpu_bound_threads(survey(ledger)) is None


def test_one_task_dominates():
    """A task of 10 s beside 128 of 0.1 s: no width can beat it, the others would take 1.6 s."""
    ledger = plant([10.0] + [0.1] * 128, keys=["whale", *range(128)])
    advice = only(ledger, _slow.dominating_task)
    assert "Task whale alone took 10.0 s of 10.0 s: no number of workers can beat that." == advice.cause
    assert "Without it, the run would take about 1.6 s: split it." == advice.cure


def test_a_task_on_an_executor_may_be_long_because_it_waits_for_others_there():
    """Then more workers would help: the advice claims no more than it knows."""
    ledger = plant([10.0] + [0.1] * 128, executor="ThreadExecutor")
    cause = only(ledger, _slow.dominating_task).cause
    assert cause.endswith(
        "no number of workers can beat that, unless it waits for other calls to this executor."
    )


def test_a_dominating_task_that_began_late_should_come_first():
    """What is long is best begun first; the advice says what that saves."""
    ledger = plant([0.1] * 320 + [10.0], cpu_seconds=1.0)
    retry(ledger, 0, ValueError("another's"), 0.05)
    advice = only(ledger, _slow.dominating_task)
    assert advice.cure.endswith("split it, or put it first in the input (it started 4.00 s into the run).")


def test_a_dominating_task_that_was_retried_began_with_its_first_attempt():
    """What is said of its begin is not said of its last attempt."""
    ledger = plant([10.0] + [0.1] * 100)
    ledger.try_again(0, Lost(TimeoutError("no worker came up"), 0, None, BEGAN, None))
    retry(ledger, 0, ValueError("no"), 4.0)
    advice = only(ledger, _slow.dominating_task)
    assert advice.cure.endswith(": split it.")  # most of it was the attempt that succeeded


def test_the_attempts_of_others_are_not_those_of_a_dominating_task():
    """The other tasks have spent their timeouts, in all more than half of its time."""
    ledger = plant([10.0] + [0.1] * 100)
    for index in range(1, 101):
        retry(ledger, index, TaskTimeout("too long"), 0.09)
    assert _slow.dominating_task(survey(ledger)).cure.endswith(": split it.")


def test_a_dominating_task_that_failed_is_not_to_be_split():
    """If the task that dominates a run has failed, a timeout is advised, and not to split it."""
    ledger = plant([10.0] + [0.1] * 100)
    fail(ledger, 0, ValueError("no"))
    advice = only(ledger, _slow.dominating_task)
    assert "Task 0 alone took 10.0 s of 10.0 s, most of it in 1 attempt that failed." == advice.cause
    assert advice.cure.endswith(": a timeout would bound what it costs.")


def test_a_dominating_task_of_failed_attempts_is_not_to_be_split_either():
    """Its own attempts made it long, be it that the last one succeeded."""
    ledger = plant([10.0] + [0.1] * 100)
    retry(ledger, 0, ValueError("no"), 5.0)
    retry(ledger, 0, ValueError("no"), 4.0)
    advice = only(ledger, _slow.dominating_task)
    assert advice.cause.endswith(", most of it in 2 attempts that failed.")
    assert advice.cure.endswith(": a timeout, or fewer retries, would bound what it costs.")


def test_a_run_that_has_a_timeout_is_not_told_to_take_one():
    """It did not strike before the attempts failed by themselves, so only a lower one would help."""
    ledger = plant([10.0] + [0.1] * 100, timeout=20.0)
    fail(ledger, 0, ValueError("no"))
    assert only(ledger, _slow.dominating_task).cure.endswith(": a lower timeout would bound what it costs.")


def test_nor_is_a_task_that_has_a_timeout_of_its_own():
    """If an attempt of the dominating task has run into a timeout of its own, a lower one is advised."""
    ledger = plant([10.0] + [0.1] * 100)
    fail(ledger, 0, TaskTimeout("too long"))
    assert only(ledger, _slow.dominating_task).cure.endswith(": a lower timeout would bound what it costs.")


def test_a_task_that_was_cut_off_does_not_dominate():
    """A long task that the stop cut off gets no advice: how long it would have been nobody knows."""
    ledger = plant([10.0] + [0.1] * 100)
    cut_off(ledger, [0], "run_timeout of 10 s")
    assert [] == advice_on(ledger)


def test_tasks_may_be_too_small_for_processes():
    """20,000 tasks of 10 µs that took 2 s: a plain loop needs 0.2 s."""
    ledger = plant([0.00001] * 20_000, executor="processes", ended_at=BEGAN + 2, travel_seconds=1.0)
    advice = only(ledger, _slow.too_small)
    assert "20,000 of about 10 µs, 200 ms of work in a run of 2.00 s" in advice.cause
    assert advice.cure.startswith("A plain loop would take about 200 ms")

    ledger.facts.limits = ("RateLimit(10000, per=1)",)
    assert _slow.too_small(survey(ledger)) is None
    ledger.facts.limits = ()
    retry(ledger, 0, ValueError("no"), 0.0)
    assert _slow.too_small(survey(ledger)) is None


@pytest.mark.parametrize("error", [WorkerDied("segfault", signal=11, pid=7), TaskTimeout("late")])
def test_no_plain_loop_is_recommended_for_tasks_that_crash_or_hang(error):
    """It would end, or hang, with the first of them."""
    small = plant([0.00001] * 20_000, executor="processes", ended_at=BEGAN + 2, travel_seconds=1.0)
    late_to_start = late([0.02] * 10)
    assert "a plain loop" in _slow.slow_to_start(survey(late_to_start)).cure
    for ledger in (small, late_to_start):
        fail(ledger, 0, error)
    assert _slow.too_small(survey(small)) is None
    assert "a plain loop" not in _slow.slow_to_start(survey(late_to_start)).cure


def late(tasks, *, start=0.8, **facts):
    """A run in processes whose first task begins so many seconds after it."""
    ledger = plant(tasks, 2, executor="processes", **facts)
    ledger.facts.began_at -= start
    return ledger


def test_workers_may_take_longer_to_start_than_the_work_takes():
    """0.8 of 0.9 s until numpy and its like are imported, for 0.2 s of work."""
    advice = only(late([0.02] * 10), _slow.slow_to_start)
    assert advice.cause.startswith(
        "The first task started 800 ms into a run of 900 ms: the worker processes took that long"
    )
    assert "A ProcessExecutor of your own" in advice.cure
    assert advice.cure.endswith("; a plain loop would need about 200 ms for the work.")
    assert "a plain loop" not in only(late([0.7] * 2), _slow.slow_to_start).cure  # which would need longer


def test_what_all_workers_are_sent_may_take_longer_than_the_work():
    """Warm workers would be sent it anew with each run."""
    sent = {"job_seconds": 0.3, "job_bytes": 320 << 20}
    advice = only(late([0.02] * 10, **sent), _slow.slow_to_start)
    assert (
        "started 800 ms into a run of 900 ms: it took that long to send the workers 320 MiB, which are the function"
        in advice.cause
    )
    assert advice.cure.startswith(
        "Load the data in the workers: from a path given to the task, or in the initializer"
    )
    assert advice.cure.endswith("to each of them; a plain loop would need about 200 ms for the work.")

    sent = {"job_seconds": 0.1, "job_bytes": 320 << 20}
    assert "took that long to start" in only(late([0.02] * 10, **sent), _slow.slow_to_start).cause


def test_what_was_sent_to_all_is_measured():
    """The function with what it names: here its argument."""
    results = run_parallel(len, [b""], kwargs={}, executor="processes")
    assert results._ledger.facts.job_bytes < 1000
    ballast = bytes(1 << 20)
    facts = run_parallel(lambda item: len(ballast), [1], executor="processes")._ledger.facts
    assert facts.job_bytes > 1 << 20
    assert facts.job_seconds > 0


def test_a_first_task_that_failed_had_begun_all_the_same():
    """A worker that runs an attempt is up, whatever becomes of it."""
    ledger = late([0.5, 0.3])
    fail(ledger, 0, ValueError("no"))
    fail(ledger, 1, ValueError("no"))
    assert "The first task started 800 ms into" in only(ledger, _slow.slow_to_start).cause


def test_what_was_known_before_needs_no_worker_to_start():
    """A value that a checkpoint had is there before any worker is."""
    ledger = late([0.02] * 10)
    ledger.succeed_again(0, 0)
    ledger.started[0] = ledger.ended[0] = ledger.facts.began_at
    assert "The first task started 800 ms into" in only(ledger, _slow.slow_to_start).cause


@pytest.mark.parametrize(
    ("tasks", "facts"),
    [
        ([1.0] * 10, {}),
        ([0.02] * 10, {"start": 0.15}),
        ([0.02] * 10, {"limits": ("RateLimit(1, per=1)",)}),
        ([0.02] * 10, {"executor": "threads"}),
        ([0.02] * 10, {"executor": "ProcessExecutor"}),
        ([0.02] * 10, {"input_seconds": 0.45}),
        ([0.02] * 10, {"travel_seconds": 0.45}),
        ([0.0001] * 10, {}),
    ],
)
def test_a_late_first_task_may_have_other_reasons_or_not_matter(tasks, facts):
    """A share of the run, a moment, a limit, no workers to start, a slow input, large arguments; or the tasks are too small anyway."""
    ledger = late(tasks, start=facts.pop("start", 0.8))
    for name, value in facts.items():
        setattr(ledger.facts, name, value)
    assert _slow.slow_to_start(survey(ledger)) is None


def test_a_slow_input_starves_the_workers():
    """Reading takes 11.5 of 12.8 s, and the tasks by themselves would take 1.6 s."""
    ledger = plant([0.1] * 128, pause=0.1, input_seconds=11.5)
    advice = only(ledger, _slow.starved)
    assert "reading the input took 11.5 s of 12.8 s, and 1.0 of 8 workers were busy" in advice.cause
    assert "would take about 1.6 s" in advice.cure


@pytest.mark.parametrize(
    ("facts", "estimate"),
    [
        ({"cpu_seconds": 10.0}, "10 s"),
        ({"cpu_seconds": 20.0}, "5.0 s"),
        ({"cpu_seconds": 9.0, "worker_cpu_seconds": 3.0}, "3.0 s"),
        ({"cpu_seconds": 10.0, "executor": "processes"}, "1.6 s"),
        ({"input_seconds": 8.0}, "4.8 s"),
    ],
)
def test_threads_that_compute_are_not_said_to_do_so_at_the_same_time(facts, estimate):
    """Not unless they have: 20 s of processor time in 12.8 s. Threads of the tasks' own do not count, nor do processes wait for a lock.

    And no more time is saved than the input took.
    """
    ledger = plant([0.1] * 128, pause=0.1, **{"input_seconds": 11.5, **facts})
    assert f"would take about {estimate}:" in only(ledger, _slow.starved).cure


def test_an_input_slowed_by_the_tasks_is_not_to_blame():
    """Tasks that hold the interpreter's lock slow down reading too; the workers are busy all the same."""
    assert _slow.starved(survey(plant([0.8] * 80, cpu_seconds=8.0, input_seconds=7.0))) is None
    assert _slow.starved(survey(plant([0.1] * 128, pause=0.1, input_seconds=6.0))) is None


def test_a_wait_that_nobody_asked_for_held_nothing_back():
    """``http.fetch`` has a limit that is there for Retry-After alone. A pause that explains a part only is not all of the reason."""
    ledger = plant([0.1] * 140, 10, pause=0.1, limits=("Retry-After", "RateLimit(10, per=1)"))
    assert "held back by RateLimit(10, per=1)." in only(ledger, _slow.held_by_limits).cause

    alone = plant([0.1] * 140, 10, pause=0.1, limits=("Retry-After",))
    assert _slow.held_by_limits(survey(alone)) is None
    for limit in ("Retry-After", ""):
        assert _slow.held_by_limits(survey(paused(limit, tried=[(3, 1, 2)]))) is None


def told(seconds):
    """An error that asks for a wait."""
    error = OSError("busy")
    error.retry_after = seconds
    return error


def paused(limit, tried=(), failed=()):
    """Twelve calls of 0.1 s after 9 s of nothing; those in ``tried`` and ``failed`` were told to wait: task, instant, seconds."""
    ledger = plant([0.1] * 12, 2, limits=(limit,) if limit else (), ended_at=BEGAN + 9.6)
    for index in range(12):
        ledger.started[index] += 9.0
        ledger.ended[index] += 9.0
    for index, at, seconds in tried:
        ledger.try_again(index, Lost(told(seconds), 1, BEGAN + at, BEGAN + at, "thread 1"))
    for index, at, seconds in failed:
        ledger.fail(index, Lost(told(seconds), 1, BEGAN + at, BEGAN + at, "thread 1"))
    return ledger


@pytest.mark.parametrize(
    ("ledger", "why", "estimate"),
    [
        (paused("RateLimit(100, per=1)", failed=[(3, 1, 8)]), "8.00 s, since task 3 was", "1.6 s"),
        (paused("Retry-After", failed=[(3, 1, 8)]), "8.00 s, since task 3 was", "1.6 s"),
        (paused("", tried=[(3, 1, 8)]), "8.00 s, since task 3 was", "1.6 s"),
        (paused("", tried=[(3, 1, 3), (3, 5, 4)]), "7.00 s, since task 3 was", "2.6 s"),
        (  # until the last start, and not for what the checkpoint had
            paused("Retry-After", tried=[(3, 2, 80)], failed=[(2, -BEGAN, 8), (5, 9.5, 8)]),
            "7.50 s, since task 3 was",
            "2.1 s",
        ),
        (
            paused("Retry-After", [(5, 1, 3), (4, 0, 3), (4, 0.5, 1), (4, 5, 3)], failed=[(7, 2, 1)]),
            "7.00 s, since task 4 and 2 others were",
            "2.6 s",
        ),
    ],
)
def test_workers_idle_because_a_task_was_told_to_wait(ledger, why, estimate):
    """The wait pauses its group: it is to blame, and not the limit, without which it would last as long."""
    advice = only(ledger, _slow.held_by_limits)
    assert advice.cause.endswith(f" % of the time, held back by a pause of {why} told to wait.")
    assert f"Without that, the run would take about {estimate}:" in advice.cure
    assert "instead of" not in advice.cure


@pytest.mark.parametrize(
    "ledger",
    [
        paused("ConcurrencyLimit(1)", failed=[(3, 1, 8)]),  # pauses nobody, and is not tried again
        paused("RateLimit(1, per=1)", failed=[(3, 1, 301)]),  # is not waited for
        paused("RateLimit(1, per=1)", failed=[(3, 9.5, 8)]),  # after the last start there was nobody to pause
    ],
)
def test_a_wait_that_held_nobody_up_is_not_to_blame(ledger):
    """If nobody waited for a task that was told to wait, the limit is named alone."""
    assert "held back by" in only(ledger, _slow.held_by_limits).cause
    assert "told to wait" not in only(ledger, _slow.held_by_limits).cause


def test_a_short_pause_is_named_beside_the_limit():
    """Where it explains a part only, both have held the run back."""
    advice = only(paused("RateLimit(1, per=1)", tried=[(3, 1, 2)]), _slow.held_by_limits)
    assert "by RateLimit(1, per=1), a pause of 2.00 s, since task 3 was told to wait." in advice.cause
    assert "Without the limit, the run would take" in advice.cure


def test_workers_idle_for_a_limit():
    """Ten starts a second with 10 workers and tasks of 0.1 s: one or two workers would do."""
    advice = only(plant([0.1] * 140, 10, pause=0.1, limits=("RateLimit(10, per=1)",)), _slow.held_by_limits)
    assert "The workers idled 90 % of the time, held back by RateLimit(10, per=1)." == advice.cause
    assert advice.cure.startswith(
        "2 workers instead of 10 would do. Without the limit, the run would take about 1.4 s"
    )
    both = plant([0.1] * 140, 10, pause=0.1, limits=("RateLimit(10, per=1)", "ConcurrencyLimit(9)"))
    assert "Without the limits, the run" in only(both, _slow.held_by_limits).cure

    busier = plant([0.14] * 100, 2, pause=0.1, limits=("RateLimit(10, per=1)",))
    assert only(busier, _slow.held_by_limits).cure.startswith("Without the limit, the run")


def test_a_run_of_which_all_failed_was_not_held_back_by_a_limit():
    """That nothing succeeded, or only what began at once, matters more than how fast it did not."""
    ledger = plant([0.1] * 20, 10, pause=0.1, limits=("RateLimit(10, per=1)",))
    for index in reversed(range(20)):
        fail(ledger, index, OSError("no"))
        assert index > 1 or [] == advice_on(ledger)


def test_what_came_after_the_last_start_says_nothing_about_a_limit():
    """The last task is a long one; its time bounds the estimate, and is not counted among what kept the workers busy."""
    long = plant([0.1] * 139 + [10.0], 10, pause=0.1, limits=("RateLimit(10, per=1)",))
    advice = only(long, _slow.held_by_limits)
    assert advice.cause.startswith("The workers idled 90 % of the time")
    assert advice.cure.startswith(
        "2 workers instead of 10 would do. Without the limit, the run would take about 10 s"
    )


def test_a_slow_input_is_not_the_fault_of_a_limit_nor_of_tiny_tasks():
    """Of a slow input only that is said, though there is a limit, or the tasks are tiny: the workers had nothing to start."""
    ledger = plant([0.1] * 128, pause=0.1, input_seconds=11.5, limits=("RateLimit(100, per=1)",))
    only(ledger, _slow.starved)
    tiny = plant([0.00001] * 20_000, executor="processes", ended_at=BEGAN + 2, input_seconds=1.7)
    only(tiny, _slow.starved)


def test_a_limit_that_holds_nobody_up_is_not_to_blame_for_a_long_last_task():
    """If all workers were busy up to the last start, no limit is named, however long the last task takes."""
    ledger = plant([0.1] * 100 + [1.0], limits=("RateLimit(1000, per=1)",))
    assert _slow.held_by_limits(survey(ledger)) is None


def test_pickling_may_cost_more_than_the_work():
    """4 s of pickling in the parent, as much in the workers, for 1 s of work."""
    ledger = plant([0.05] * 100, workers=4, executor="processes", travel_seconds=4.0, ended_at=BEGAN + 5)
    advice = only(ledger, _slow.costly_pickling)
    assert advice.cause.endswith(
        "took 4.00 s in the parent, and about as long in the workers, which leaves 1.0 s of their 5.00 s for the work."
    )
    assert "if that were free, the run would take about 250 ms." in advice.cure
    alone = plant([4.0], workers=4, executor="processes", travel_seconds=2.0)
    assert "the run would take about 2.0 s." in only(alone, _slow.costly_pickling).cure


def test_what_is_left_for_the_work_may_be_next_to_nothing():
    """Nothing is estimated that the figures beside it contradict: 1.6 s busy, and 1.7 s of pickling."""
    ledger = plant([0.4] * 4, workers=2, executor="processes", travel_seconds=1.7, ended_at=BEGAN + 3)
    advice = only(ledger, _slow.costly_pickling)
    assert advice.cause.endswith(
        "took 1.70 s in the parent, and nearly all of the 1.60 s that the workers were busy."
    )
    assert "if that were free, next to nothing would be left of the 3.00 s." in advice.cure


def test_pickling_that_costs_little_is_not_mentioned():
    """Pickling that takes a tenth of the work gets no advice."""
    ledger = plant([0.05] * 100, workers=4, executor="processes", travel_seconds=0.5)
    assert [] == advice_on(ledger)


def test_tasks_with_threads_of_their_own_crowd_the_processors():
    """8 workers whose tasks start threads, nine each: 28.8 s of the 32 s of processor time are not the workers'."""
    ledger = plant([0.8] * 80, cpu_seconds=32.0, worker_cpu_seconds=3.2)
    advice = only(ledger, _slow.oversubscribed)
    assert "these used 90 % of the processor time, with about 20 threads per processor." in advice.cause
    assert advice.cure.endswith("or use max_workers=1.")
    # Processes would not help, though the threads of the pool alone use about one processor.
    only(plant([0.8] * 80, cpu_seconds=12.0, worker_cpu_seconds=8.0), _slow.oversubscribed)


def test_tasks_that_compute_without_the_lock_are_not_crowded():
    """If all processor time is the workers' own, threads of tasks are not said to crowd the processors."""
    assert [] == advice_on(plant([0.8] * 80, cpu_seconds=32.0, worker_cpu_seconds=31.0))


def test_a_coroutine_that_blocks_its_loop_is_named():
    """How long all stood still, who held the loop longest, and what to do instead."""
    facts = {"blocked_seconds": 3.0, "longest_step": 2.0, "longest_step_of": 1}
    advice = only(plant([0.5] * 80, keys=[f"k{n}" for n in range(80)], **facts), _coroutines.blocked_loop)
    assert "was blocked for 3.00 s of 5.00 s" in advice.cause
    assert "task k1 for the longest, 2.00 s at a time" in advice.cause
    assert "asyncio.to_thread" in advice.cure


def test_a_coroutine_that_runs_alone_keeps_nobody_waiting():
    """A blocked loop is not mentioned where one task at a time runs anyway."""
    facts = {"blocked_seconds": 3.0, "longest_step": 2.0, "longest_step_of": 1}
    assert [] == advice_on(plant([0.5] * 10, workers=1, **facts))


def test_coroutines_of_the_default_width_are_few():
    """That more could run at a time is said where nobody chose the number, and only of coroutines."""
    advice = only(plant([0.2] * 80, coroutines=True, cpu_seconds=0.3), _width.few_at_a_time)
    assert "Only 8 coroutines ran at a time, the default of max_workers" in advice.cause
    assert "all at once would take about 300 ms" in advice.cure
    assert 1.7 == pytest.approx(advice.saves)
    large = plant([0.2] * 320, workers=32, coroutines=True, cpus=64)
    assert "Only 32 coroutines" in only(large, _width.few_at_a_time).cause
    for facts, estimate in (({}, "200 ms"), ({"input_seconds": 0.4}, "400 ms")):
        cure = only(plant([0.2] * 80, coroutines=True, **facts), _width.few_at_a_time).cure
        assert f"would take about {estimate}" in cure


@pytest.mark.parametrize(
    "facts", [{"workers": 10}, {"cpu_seconds": 1.9}, {"limits": ("ConcurrencyLimit(8)",)}, {"pause": 0.05}]
)
def test_coroutines_that_something_else_holds_back_are_not_too_few(facts):
    """A number that somebody chose, computation, a limit, gaps between the starts: a larger width would not help."""
    run = survey(plant([0.2] * 80, coroutines=True, **facts))
    assert _width.few_at_a_time(run) is None


def test_a_run_within_a_task_has_a_share_of_the_default_width():
    """That more could run at a time is said where the default was divided and tasks wait; not where they compute, or where it was not."""
    advice = only(plant([0.2] * 80, workers=1, outer=100), _width.divided)
    assert "Only 1 task ran at a time: this run is within a task, of which 100 may run" in advice.cause
    assert advice.cure.startswith("max_workers=8 would take about 2.0 s")
    long = only(plant([3.0] + [0.2] * 65, workers=1, outer=100), _width.divided)
    assert long.cure.startswith("max_workers=8 would take about 3.0 s")
    for facts in (
        {},
        {"outer": 100, "cpu_seconds": 15.0},
        {"outer": 100, "limits": ("ConcurrencyLimit(1)",)},
    ):
        assert _width.divided(survey(plant([0.2] * 80, workers=1, **facts))) is None


def test_only_a_default_counts_as_divided():
    """In a task of a wide executor, the report of a run says so unless the run has chosen its width."""
    with ThreadExecutor(100) as executor:
        for chosen, said in (({}, True), ({"max_workers": 1}, False)):
            results = executor.submit(run_parallel, time.sleep, [0.08] * 4, **chosen).result()
            assert said == ("of which 100 may run at a time" in results.report())


# What was wasted


def test_a_storm_of_retries():
    """60 of 260 attempts made again: how much work that was, why, and what a budget for 200 tasks would have done."""
    ledger = plant([0.2] * 200, workers=4)
    for index in range(60):
        retry(ledger, index, ConnectionError(f"no answer from 10.0.0.{index}"), 0.1)
    for index in range(100, 200):
        fail(ledger, index, ValueError("no"))
    advice = only(ledger, _wasted.retry_storm)
    assert "60 of 260 attempts failed and were retried (23 %, 6.00 s of work)" in advice.cause
    assert "mostly for ConnectionError: no answer from 10.0.0.0" in advice.cause
    assert "budget=0.1) would have allowed about 20 retries" in advice.cure


def test_a_storm_of_retries_that_take_no_time():
    """As in ``inline_runs``, where only the clock of the backoff moves."""
    ledger = plant([0.0] * 20, ended_at=BEGAN + 20)
    for index in range(20):
        retry(ledger, index, ConnectionError("no"), 0.0)
    advice = only(ledger, _wasted.retry_storm)
    assert "(50 %, 0 s of work)" in advice.cause
    assert "would have allowed about 10 retries" in advice.cure  # the least that a budget allows


@pytest.mark.parametrize(("retries", "tasks"), [(15, 40), (25, 200)])
def test_a_few_retries_are_no_storm(retries, tasks):
    """That is what they are for: a few, or a small share."""
    ledger = plant([0.2] * tasks)
    for index in range(retries):
        retry(ledger, index, ConnectionError("no"), 0.1)
    assert [] == advice_on(ledger)


STACK = """\
  File "/usr/lib/python3.11/threading.py", line 1038, in _bootstrap_inner
    self.run()
  File "/somewhere/parallelkit/_executors/_thread/_port.py", line 117, in execute
    value = self._context.copy().run(self._call, item)
  File "/home/me/shop/client.py", line 40, in fetch
    return self.socket.recv(4096)
"""


def test_abandoned_threads():
    """How many, the work that is lost, and where they stood, or how many of them at one place."""
    ledger = plant([2.0] * 3 + [0.5] * 100)
    for index in range(3):
        fail(ledger, index, timed_out("task", 1, abandoned=True), stack=STACK)
    advice = only(ledger, _wasted.abandoned_threads)
    assert "3 threads overran the timeout and had to be abandoned after 6.00 s of work" in advice.cause
    assert "which is lost; each keeps what it holds until it returns." in advice.cause
    assert "All were in fetch (client.py, line 40)." in advice.cause
    assert 'executor="processes"' in advice.cure

    ledger = plant([2.0])
    fail(ledger, 0, timed_out("task", 1, abandoned=True))
    advice = _wasted.abandoned_threads(survey(ledger))
    assert advice.cause.endswith("which is lost; it keeps what it holds until it returns.")

    ledger = plant([2.0])
    fail(ledger, 0, timed_out("task", 1, killed=True, abandoned=True))  # a process that no signal ends
    assert _wasted.abandoned_threads(survey(ledger)) is None


def test_abandoned_threads_at_several_places_are_counted():
    """One place in five is not where most of them were."""
    for elsewhere, told in ((0, "It was"), (1, "1 of them was"), (4, "1 of them was")):
        ledger = plant([2.0] * (1 + elsewhere))
        fail(ledger, 0, timed_out("task", 1, abandoned=True), stack=STACK)
        for index in range(1, 1 + elsewhere):
            stack = STACK.replace("line 40", f"line {index}")
            fail(ledger, index, timed_out("task", 1, abandoned=True), stack=stack)
        advice = _wasted.abandoned_threads(survey(ledger))
        assert advice.cause.endswith(f"{told} in fetch (client.py, line 40).")
    fail(ledger, 1, timed_out("task", 1, abandoned=True), stack=STACK)
    assert _wasted.abandoned_threads(survey(ledger)).cause.endswith(
        "2 of them were in fetch (client.py, line 40)."
    )


@pytest.mark.parametrize(
    ("facts", "cure"),
    [
        ({"coroutines": True}, "Let asyncio.CancelledError end"),
        ({"limits": ("Retry-After",)}, "connect_timeout"),
    ],
    ids=["coroutines", "fetch"],
)
def test_what_cannot_go_into_processes_is_not_advised_to(facts, cure):
    """Neither coroutines, nor the requests of ``http.fetch``, which takes no executor."""
    ledger = plant([2.0] * 3 + [0.5] * 100, **facts)
    fail(ledger, 0, timed_out("task", 1, abandoned=True), stack=STACK)
    advice = _wasted.abandoned_threads(survey(ledger))
    assert cure in advice.cure
    assert "processes" not in advice.cure
    computing = _slow.cpu_bound_threads(survey(plant([0.8] * 80, cpu_seconds=8.0, **facts)))
    assert not computing.cure.startswith("executor=")


SOLVING = """\
  File "/home/me/shop/solver.py", line 30, in main
    solve(shop)
  File "/home/me/shop/solver.py", line 9, in solve
    step()
"""


def test_processes_that_were_killed():
    """They are no threads and hold nothing any more; how many, after how long, and where they stood."""
    ledger = plant([2.0] * 4 + [0.5] * 100, executor="processes", timeout=2)
    for index in range(2):
        fail(ledger, index, timed_out("task", 2, killed=True), stack=SOLVING)
    assert (
        "2 attempts were killed at their timeout of 2 s (4.00 s of work lost), at solve (solver.py, line 9)."
        == only(ledger, _wasted.killed_processes).cause
    )
    fail(ledger, 2, timed_out("task", 2, killed=True))
    assert "lost), 2 of them at solve (solver.py" in only(ledger, _wasted.killed_processes).cause


def test_a_process_that_was_killed_at_a_timeout_of_its_own():
    """The run's own timeout says nothing of it, and no stack is no place."""
    for timeout in (1, 5, None):
        ledger = plant([2.0] * 3 + [0.5] * 100, executor="processes", timeout=timeout)
        fail(ledger, 0, timed_out("task", 2, killed=True))
        assert "1 attempt was killed at its timeout (2.00 s of work lost)." == advice_on(ledger)[0].cause


def test_a_process_that_crashed_was_not_killed():
    """Its stack is a sign of a crash, not of a timeout."""
    ledger = plant([2.0] * 3 + [0.5] * 100, executor="processes")
    fail(ledger, 0, WorkerDied("segfault", exitcode=-11, signal=11, pid=7), stack=SOLVING)
    assert [] == advice_on(ledger)


def test_a_coroutine_that_was_cancelled_is_no_thread():
    """A coroutine that was cancelled at its timeout, and so has a stack, is not counted as an abandoned thread."""
    ledger = plant([2.0] * 3 + [0.5] * 100, workers=10, coroutines=True)
    fail(ledger, 0, timed_out("task", 2), stack=STACK)
    assert [] == advice_on(ledger)


def test_a_thread_that_stood_in_no_python_code_of_the_task_is_not_placed():
    """A stack of our own frames alone names no place: they say nothing to the caller."""
    stack = STACK[: STACK.index('  File "/home/me')]
    assert "" == _wasted.innermost(stack) == _wasted.innermost("")


def test_an_attempt_that_waits_for_a_lock_stands_where_it_waits():
    """An attempt that waits for a lock is placed in the code that waits, not in the module of the lock."""
    waits = '  File "/usr/lib/python3.11/threading.py", line 327, in wait\n    waiter.acquire()\n'
    assert "fetch (client.py, line 40)" == _wasted.innermost(STACK + waits)


def test_a_timeout_that_nobody_enforced():
    """An inline run says how many attempts overran, and by how much."""
    ledger = plant([0.1] * 10 + [1.5, 3.0], workers=1, executor="inline", timeout=1, timeouts_enforced=False)
    fail(ledger, 11, ValueError("no"))
    advice = only(ledger, _wasted.timeouts_not_enforced)
    assert "2 attempts ran past the timeout of 1 s, for up to 3.00 s" in advice.cause


def test_a_timeout_that_nobody_needed_is_not_mentioned():
    """An inline run in which no attempt overran its timeout gets no advice."""
    ledger = plant([0.1] * 10, workers=1, executor="inline", timeout=1, timeouts_enforced=False)
    assert [] == advice_on(ledger)


def test_memory_that_ran_out():
    """MemoryError and workers that the kernel killed are counted together, each by its name."""
    ledger = plant([0.5] * 100, executor="processes")
    fail(ledger, 3, MemoryError())
    for index in (4, 5):
        fail(ledger, index, WorkerDied("killed", exitcode=-9, signal=9, pid=7))
    advice = only(ledger, _wasted.memory_pressure)
    assert (
        "Memory ran short: 1 attempt ended in a MemoryError and 2 attempts ended in a SIGKILL" in advice.cause
    )
    assert "1.50 s of work is lost" in advice.cause
    assert "max_workers=4 instead of 8" in advice.cure
    ledger = plant([0.5] * 100)
    retry(ledger, 3, MemoryError(), 0.2)
    cut_off(ledger, [3], "Ctrl-C", before=MemoryError())
    short = "Memory ran short: 1 attempt ended in a MemoryError; 200 ms of work is lost."
    assert short == only(ledger, _wasted.memory_pressure).cause


def test_a_process_killed_by_whoever_may_have_had_too_little_memory():
    """A SIGKILL alone proves nothing: the user may have sent it."""
    ledger = plant([0.5] * 100, executor="processes")
    fail(ledger, 4, WorkerDied("killed", exitcode=-9, signal=9, pid=7))
    assert "Memory may have run short: 1 attempt ended" in only(ledger, _wasted.memory_pressure).cause
    ledger.facts.max_workers = 1
    assert "max_workers" not in _wasted.memory_pressure(survey(ledger)).cure


def test_a_worker_that_ended_otherwise_is_no_sign_of_little_memory():
    """A segfault is not the kernel's doing, and a timeout is no death."""
    ledger = plant([0.5] * 100, executor="processes")
    fail(ledger, 3, WorkerDied("segfault", exitcode=-11, signal=11, pid=7))
    fail(ledger, 4, TaskTimeout("killed"))
    assert [] == advice_on(ledger)


def test_what_was_cut_off_by_the_stop_is_not_held_against_the_run():
    """Threads that the stop of the run abandons, by design, get no advice."""
    ledger = plant([0.5] * 100)
    cut_off(ledger, range(95, 100), "run_timeout of 6 s")
    assert [] == advice_on(ledger)


@pytest.mark.parametrize(
    ("look", "told", "executor"),
    [
        (_wasted.abandoned_threads, "1 thread overran the timeout", "threads"),
        (_wasted.killed_processes, "1 attempt was killed at its timeout", "processes"),
    ],
)
def test_a_retry_that_was_cut_off_has_not_overrun_as_well(look, told, executor):
    """What is kept of it is the error of the attempt before it, which alone is counted."""
    ledger, killed = plant([0.5] * 100, executor=executor), executor == "processes"
    overdue = timed_out("task", 0.2, killed=killed, abandoned=not killed)
    retry(ledger, 3, overdue, 0.2)
    cut_off(ledger, [3], "Ctrl-C", before=overdue)
    cause = only(ledger, look).cause
    assert cause.startswith(told)
    assert "200 ms of work" in cause


# All together


def test_what_saves_most_comes_first():
    """The order is by the seconds that each cure saves."""
    ledger = plant([1.0] * 40, input_seconds=4.5, ended_at=BEGAN + 8)
    for index in range(30):
        retry(ledger, index, OSError("flaky"), 0.9)
    assert [pytest.approx(5.4), 3.0] == [advice.saves for advice in advice_on(ledger)]


def test_results_that_were_pickled_give_the_same_advice():
    """All that the advice rests on is in the results themselves."""
    results = Results(plant([0.8] * 80, cpu_seconds=8.0))
    assert results.report() == pickle.loads(pickle.dumps(results)).report()
    assert "would take about 2.1 s" in results.report()


def test_a_real_run_that_waits_for_a_limit_is_told():
    """The facts of the advice are those that a run really notes."""
    results = run_parallel(abs, range(6), max_workers=4, limits=RateLimit(2, per=0.1))
    assert "held back by RateLimit(2, per=0.1)" in results.report()


def test_a_real_storm_of_retries_is_told():
    """Each task fails once before it succeeds."""
    calls = count()
    lock = threading.Lock()
    seen = set()

    def flaky(item):
        next(calls)
        with lock:
            if item not in seen:
                seen.add(item)
                raise ConnectionError("come back later")

    results = run_parallel(flaky, range(30), retries=Retry(1, delay=0))
    assert "30 of 60 attempts failed and were retried (50 %" in results.report()


@pytest.mark.slow
@pytest.mark.all
def test_a_real_process_that_is_killed_is_told():
    """Where it stood is read from the stack that it wrote down itself, if it got a processor in time for that."""

    def hang(item):
        threading.Event().wait()

    reports = [
        run_parallel(hang, [1], executor="processes", timeout=0.2).report().replace("\n    ", " ")
        for _ in range(4)
    ]
    assert all("1 attempt was killed at its timeout of 0.2 s" in report for report in reports)
    assert any("hang (test_advice.py, line" in report for report in reports)
    assert not any("thread" in report for report in reports)


@pytest.mark.slow
def test_a_real_run_that_sends_more_than_it_works_is_told():
    """A fifth of a million texts are sent to have them counted. On a busy machine other waits may take longer, so one of five runs will do."""
    items = [list(map(str, range(200_000)))] * 6
    runs = (run_parallel(len, items, executor="processes", max_workers=2) for _ in range(5))
    assert any("Sending costs more than the work" in results.report() for results in runs)


@pytest.mark.slow
@pytest.mark.all
def test_a_real_run_that_computes_in_threads_is_told():
    """A second of pure Python in four threads."""

    def spin(item):
        end = time.thread_time() + 0.025
        while time.thread_time() < end:
            pass

    results = run_parallel(spin, range(40), max_workers=4)
    facts = results._ledger.facts
    share = facts.cpu_seconds / results.summary.wall
    if facts.cpus == 1 or share < 0.7:
        pytest.skip(f"{facts.cpus} processors, of which others left this run {share:.0%} of one")
    assert 'executor="processes" would take about' in results.report()
