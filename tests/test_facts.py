"""What a run notes about itself for the report."""

import time

from parallelkit import RateLimit, ThreadExecutor, run_parallel
from parallelkit._executors._contract import Job
from parallelkit._executors._threads import ThreadEngine
from parallelkit._executors._width import usable_cpus


def facts_of(*args, **options):
    return run_parallel(*args, **options)._ledger.facts


def test_a_run_notes_where_it_ran():
    """Executor, width, the cpus there were and the timeout are those of the run."""
    facts = facts_of(abs, [1], max_workers=3, timeout=5)
    assert ("threads", 3, usable_cpus(), 5) == (
        facts.executor,
        facts.max_workers,
        facts.cpus,
        facts.timeout,
    )
    assert facts.timeouts_enforced


def test_an_inline_run_notes_that_timeouts_are_not_enforced():
    """Nobody is there to enforce them."""
    assert not facts_of(abs, [1], executor="inline", timeout=5).timeouts_enforced


def test_limits_are_noted_as_text():
    """A limit holds locks and callables; its text is what the report needs, and it pickles."""
    assert ("RateLimit(10, per=1)",) == facts_of(abs, [1], limits=RateLimit(10, per=1)).limits
    assert () == facts_of(abs, [1]).limits


def test_the_time_of_reading_the_input_is_noted():
    """A generator that computes for 50 ms makes input of at least 50 ms; the same items in a list of next to none."""

    def slow():
        for item in range(5):
            end = time.monotonic() + 0.01
            while time.monotonic() < end:
                pass
            yield item

    facts = facts_of(abs, slow())
    assert 0.05 <= facts.input_seconds <= facts.ended_at - facts.began_at
    assert min(facts_of(abs, list(range(5))).input_seconds for _ in range(5)) < 0.01


def test_the_time_of_a_slow_key_is_noted_as_reading():
    """What the caller's own callables take while the input is read keeps the workers waiting just the same."""

    def slow_key(item):
        end = time.monotonic() + 0.01
        while time.monotonic() < end:
            pass
        return item

    assert facts_of(abs, iter(range(5)), key=slow_key).input_seconds >= 0.05


def spin(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_the_processor_time_of_the_threads_is_told_from_the_rest():
    """What the input costs in the caller's own thread is not counted; what the workers compute is."""

    def costly_input():
        for item in [0.02] * 5:
            spin(0.02)
            yield item

    facts = facts_of(spin, costly_input(), max_workers=2)
    assert 0.1 <= facts.worker_cpu_seconds < 0.2
    assert 0.1 <= facts.cpu_seconds < 0.2


def test_an_executor_that_lives_on_counts_each_run_by_itself():
    """Also the time of threads that have ended meanwhile."""
    with ThreadExecutor(2) as executor:
        facts_of(spin, [0.05] * 2, executor=executor)
        assert facts_of(abs, [1] * 2, executor=executor).worker_cpu_seconds < 0.05


def test_threads_that_have_ended_are_counted():
    """What a thread has used is noted when it ends."""
    engine = ThreadEngine(2)
    port = engine.open(Job(spin))
    port.start([(index, 1, 0.02, None) for index in range(4)])
    done = 0
    while done < 4:
        done += sum(len(block.indices) for block in port.wait(None))
    engine.close()
    assert not engine.workers
    assert 0.08 <= engine.cpu_seconds() < 0.16


def test_the_time_of_pickling_is_noted():
    """Three times 100,000 texts, there and back, take their time in the parent; numbers take next to none."""
    heavy = facts_of(list, [list(map(str, range(100_000)))] * 3, executor="processes", max_workers=1)
    light = facts_of(abs, range(100), executor="processes", max_workers=1)
    assert 0.01 < heavy.travel_seconds < heavy.ended_at - heavy.began_at
    assert light.travel_seconds < heavy.travel_seconds


def test_plain_functions_that_might_have_been_coroutines_are_none():
    """Tasks may bring functions of both kinds; what the report says of coroutines it says only where there were some."""

    async def nothing():
        pass

    assert not facts_of({"plain": int}).coroutines
    assert facts_of({"plain": int, "other": nothing}).coroutines


def test_a_run_notes_whether_others_had_threads_at_work_meanwhile():
    """Processor time that its own threads have not used is then no sign of threads that its tasks start."""
    inner = []
    assert not facts_of(lambda item: inner.append(facts_of(abs, [item]).alone), [1]).alone
    assert [False] == inner
    assert facts_of(abs, [1]).alone
