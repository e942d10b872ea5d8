"""``on_event``: every event comes once, in order, with what a monitor needs; and three monitors."""

import asyncio
import json
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from exact_model import RateLimitException
from patience import given_time

from parallelkit import (
    ConcurrencyLimit,
    Event,
    RateLimit,
    Retry,
    Task,
    TaskCancelled,
    TaskTimeout,
    WorkerDied,
    iter_parallel,
    run_parallel,
)
from parallelkit._book import Failed, news_of_lapsed
from parallelkit._events import Observer
from parallelkit._executors._contract import Block
from parallelkit._lost import Lost
from parallelkit.testing import FakeClock, _Engine, _Port, inline_runs

AT_ONCE = Retry(1, delay=0)
REFUSED = RateLimitException(1)
LONG = 3600  # seconds, which nobody waits


def run_and_hear(fn, items, **options):
    heard = []
    run_parallel(fn, items, on_event=heard.append, **options)
    return heard


def story(heard, key):
    """The events of one task."""
    return [(event.kind, event.attempt) for event in heard if event.key == key]


def test_a_success_is_started_and_succeeded():
    """The events of a success have key, index, attempt, worker and duration, and their times never go back."""
    heard = run_and_hear(abs, [-3], key=str)
    assert [("started", 1), ("succeeded", 1)] == story(heard, "-3")
    done = heard[-1]
    assert (0, True, None) == (done.index, done.duration >= 0, done.error)
    assert "worker_started" == heard[0].kind
    assert done.worker == heard[0].worker


@pytest.mark.parametrize(
    "call", [iter_parallel, lambda *given, **options: run_parallel(*given, **options).outcomes.values()]
)
def test_events_outcomes_and_run_timeout_count_from_the_same_instant(call, monkeypatch):
    """Also if much time passes before the first attempt, as where a large function is pickled."""
    heard = []
    with inline_runs() as clock:
        monkeypatch.setattr(_Engine, "open", lambda engine, job: clock.advance(2) or _Port(job, clock))
        first, second = call(clock.advance, [1, 1], run_timeout=2.5, on_event=heard.append)
    assert [2.0, 2.0, 3.0] == [event.at for event in heard]
    assert (2.0, 1.0, TaskCancelled) == (first.started_at, first.duration, type(second.error))


def test_lazy_input_tells_the_same():
    """Lazy input has the same events, even for tasks that start before the run has recorded them."""
    heard = run_and_hear(abs, iter([-3, -4]))
    assert [("started", 1), ("succeeded", 1)] == story(heard, 0) == story(heard, 1)


def test_a_stream_tells_the_same():
    """A stream has the same events, even for settled tasks whose keys it has dropped."""
    heard = []
    assert 2 == len(list(iter_parallel(invert, [-3, 0], key=str, retries=AT_ONCE, on_event=heard.append)))
    assert [("started", 1), ("succeeded", 1)] == story(heard, "-3")
    assert [("started", 1), ("retrying", 1), ("started", 2), ("failed", 2)] == story(heard, "0")


def invert(number):
    return 1 / number


def test_a_retry_tells_its_delay_and_error():
    """A failed attempt is "retrying", with the delay until the next; the last one is "failed"."""
    heard = run_and_hear(lambda n: 1 / n, [0], retries=AT_ONCE)
    assert [("started", 1), ("retrying", 1), ("started", 2), ("failed", 2)] == story(heard, 0)
    assert 0 == next(event.delay for event in heard if event.kind == "retrying")
    assert isinstance(heard[-1].error, ZeroDivisionError)


def test_events_tell_when_and_for_how_long():
    """``at`` counts from the begin of the run, and ``duration`` is that of the attempt, also of one that failed."""
    clock = FakeClock(100.0)

    def work(seconds):
        clock.advance(seconds)
        return 1 / (seconds - 2)

    with inline_runs(clock):
        heard = run_and_hear(work, [3, 2])
    assert [
        ("worker_started", 0.0, None),
        ("started", 0.0, None),
        ("succeeded", 3.0, 3.0),
        ("started", 3.0, None),
        ("failed", 5.0, 2.0),
    ] == [(event.kind, event.at, event.duration) for event in heard]


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        (
            [ValueError(), REFUSED, "done"],
            "started 1, retrying 1, started 2, waiting 2, started 2, succeeded 2",
        ),
        (
            [REFUSED, ValueError(), REFUSED],
            "started 1, waiting 1, started 1, retrying 1, started 2, waiting 2, failed 1",
        ),
        (
            [ValueError(), ValueError(), ValueError()],
            "started 1, retrying 1, started 2, retrying 2, started 3, retrying 3, failed 3",
        ),
        ([REFUSED] * 3, "started 1, waiting 1, started 1, waiting 1, started 1, waiting 1, failed 1"),
    ],
)
def test_events_number_the_attempts(ends, told):
    """Each event has the number of its attempt: what was told to wait counts as none, and a lapse is about the last."""
    ends = iter(ends)

    def attempt(_):
        if isinstance(end := next(ends), Exception):
            raise end
        return end

    with inline_runs():
        heard = run_and_hear(
            attempt, [0], retries=Retry(3, delay=0, max_time=20), limits=RateLimit(3, per=60)
        )
    assert told == ", ".join(f"{one.kind} {one.attempt}" for one in heard if one.key == 0)


@pytest.mark.abandons(1)
def test_an_abandoned_thread_is_told():
    """A timeout in a thread is an "abandoned" worker, and a new one starts."""
    release, heard = threading.Event(), []
    run_parallel([Task(release.wait, timeout=0.1), str], max_workers=1, on_event=heard.append)
    release.set()
    assert ["worker_started", "abandoned", "worker_started"] == [e.kind for e in heard if e.key is None]


def test_a_killed_process_is_told():
    """A timeout in a process is a "died" worker, not an "abandoned" one."""
    heard = run_and_hear(time.sleep, [LONG], executor="processes", timeout=0.1)
    assert ["worker_started", "worker_died"] == [event.kind for event in heard if event.key is None]


def test_a_cancelled_coroutine_costs_no_worker():
    """A cancelled coroutine is neither "abandoned" nor "died"."""

    async def nap(seconds):
        await asyncio.sleep(seconds)

    heard = run_and_hear(nap, [LONG], timeout=0.1)
    assert ["worker_started"] == [event.kind for event in heard if event.key is None]


def test_a_dead_process_is_told():
    """A worker that exits is "died", and another is started."""
    heard = run_and_hear(lambda n: n or os._exit(3), [0, 1], executor="processes", max_workers=1)
    started, died, another = [event for event in heard if event.key is None]
    assert ("worker_started", "worker_died", "worker_started") == (started.kind, died.kind, another.kind)
    assert (started.worker, 3) == (died.worker, died.error.exitcode)
    assert another.worker != died.worker
    assert [("started", 1), ("failed", 1)] == story(heard, 0)


def test_the_start_of_a_long_task_is_told_while_it_runs():
    """The start of a long task is reported while it runs."""
    told = threading.Event()

    def hear(event):
        if event.kind == "started":
            told.set()

    assert run_parallel(lambda _: told.wait(20), [0], on_event=hear)[0] is True


def test_the_start_of_a_long_task_in_a_process_is_told_while_it_runs(tmp_path):
    """The same holds in a process, although its worker takes a while to start."""
    fifo = tmp_path / "told"
    os.mkfifo(fifo)

    def hear(event):
        if event.kind == "started":
            fifo.write_text("told")

    results = run_parallel(Path.read_text, [fifo], executor="processes", on_event=hear, run_timeout=60)
    assert ["told"] == results.values(default=results.stopped)


def test_a_start_in_a_pool_of_others_is_told_once():
    """In a foreign pool, the hand-over is reported as the start; the real start, known at the end, is not a second event."""
    released, heard = threading.Event(), []

    def hear(event):
        heard.append(event)
        if event.kind == "started":
            released.set()

    with ThreadPoolExecutor(1) as pool:
        run_parallel(lambda _: released.wait(20), [0], executor=pool, on_event=hear)
    assert [("started", 1), ("succeeded", 1)] == story(heard, 0)


def killed():
    error = TaskTimeout("in a run of its own")
    error.killed = True
    return error


@pytest.mark.parametrize("executor", ["threads", "processes"])
@pytest.mark.parametrize("make", [killed, lambda: WorkerDied("there"), lambda: TaskCancelled("there")])
def test_what_befell_a_run_within_a_task_is_not_told_of_its_worker(make, executor):
    """An error that a task got from a nested run says nothing about the task's own worker."""

    def passes_on(_):
        raise make()

    heard = run_and_hear(passes_on, [0, 1], executor=executor, max_workers=1)
    assert ["worker_started"] == [event.kind for event in heard if event.key is None]
    assert [("started", 1), ("failed", 1)] == story(heard, 0) == story(heard, 1)


def test_looks_for_starts_become_rarer_until_something_happens():
    """The interval between checks for starts doubles, and there are none if all open attempts have been reported."""
    observer = Observer(lambda event: None, str, 0.0)
    observer.admitted([0, 1])
    look = Observer.LOOK
    assert [look, 2 * look, 4 * look] == [
        observer.look_at(0.0, None, stirred) for stirred in (True, False, False)
    ]
    assert look == observer.look_at(0.0, 100.0, True)
    assert look / 2 == observer.look_at(0.0, look / 2, True)  # a deadline is not overslept
    observer.begun([(0, 1.0, "a"), (1, 1.0, "b")])
    assert (None, 7.0) == (observer.look_at(0.0, None, True), observer.look_at(0.0, 7.0, False))


def test_what_fails_before_it_begins_has_no_start():
    """Such as a task that cannot be pickled: it has failed, and no worker had it."""
    told = []
    observer = Observer(told.append, int, 0.0)
    observer.admitted([0])
    observer.ended([Failed(0, Lost(TypeError(), 0, None, 2.0, None), None, True)])
    assert [("failed", None)] == [(event.kind, event.worker) for event in told]


def test_no_attempt_ends_before_it_starts():
    """Whether a call in a pool of processes has begun is not known until it has ended: it may have, before that was told."""
    told = []
    observer = Observer(told.append, int, 0.0)
    observer.admitted([0, 1])
    observer.begun([(0, 2.0, "pool"), (1, 2.0, "pool")])
    observer.ended([Failed(0, Lost(OSError(), 1, 1.0, 1.5, "pool"), None, True)])
    observer.ended([Block((1,), ("value",), (1.0,), (1.25,), ("pool",))])
    ends = [(event.kind, event.at, event.duration) for event in told[-2:]]
    assert [("failed", 2.0, 0.5), ("succeeded", 2.0, 0.25)] == ends


def test_a_worker_that_has_the_name_of_an_abandoned_one_is_told_as_started():
    """Thread names are used again, so a monitor that counts workers by these events must hear of the next one."""
    told = []
    observer = Observer(lambda event: told.append(event.kind), int, 0.0)
    observer.admitted([0, 1])
    observer.begun([(0, 1.0, "thread_0")])
    overdue = TaskTimeout("too long")
    overdue.abandoned = True
    observer.ended([Failed(0, Lost(overdue, 1, 1.0, 2.0, "thread_0"), None, True)])
    observer.begun([(1, 3.0, "thread_0")])
    assert ["worker_started", "started", "abandoned", "failed", "worker_started", "started"] == told


# What a stop cuts off


class Stopped:
    """A listener to a run that a failing task stops when all its attempts are running."""

    def __init__(self, running):
        self.heard, self.running, self.begun = [], running, threading.Event()

    def __call__(self, event):
        self.heard.append(event)
        if self.running == sum(one.kind == "started" for one in self.heard):
            self.begun.set()

    def fail(self, item):
        return self.begun.wait(60) and 1 / 0

    def balance(self):
        """The number of running tasks, as a monitor's gauge has it."""
        ends = ("succeeded", "failed", "retrying")
        return sum(
            (one.kind == "started") - (one.kind in ends and one.duration is not None) for one in self.heard
        )


@pytest.mark.abandons(1)
def test_an_attempt_that_a_stop_cuts_off_is_told():
    """A thread's attempt that a stop cuts off is "failed" and "abandoned"; tasks that never began have no event."""
    release = threading.Event()
    hear = Stopped(2)
    tasks = {"hangs": release.wait, "fails": lambda: hear.fail(0), "never": str}
    exact = ConcurrencyLimit(2)  # with it nothing is handed over ahead of a free slot
    results = run_parallel(tasks, max_workers=2, max_failures=1, on_event=hear, limits=exact)
    release.set()
    assert "max_failures of 1 reached" == results.stopped
    assert [("started", 1), ("failed", 1)] == story(hear.heard, "hangs")
    assert isinstance(hear.heard[-1].error, TaskCancelled)
    assert ["abandoned"] == [
        one.kind for one in hear.heard if one.key is None and one.kind != "worker_started"
    ]
    assert ([], 0) == (story(hear.heard, "never"), hear.balance())


@pytest.mark.all
def test_a_process_that_a_stop_kills_is_told():
    """A process that a stop kills is "died"."""
    heard = run_and_hear(time.sleep, [LONG], executor="processes", run_timeout=1)
    assert [("started", 1), ("failed", 1)] == story(heard, 0)
    assert ["worker_started", "worker_died"] == [one.kind for one in heard if one.key is None]
    assert isinstance(heard[-1].error, TaskCancelled)


@given_time
def test_a_coroutine_that_a_stop_cancels_is_told(scale):
    """A coroutine that a stop cancels is "failed", and no worker is lost."""

    async def nap(seconds):
        await asyncio.sleep(seconds)

    heard = run_and_hear(nap, [LONG], run_timeout=0.2 * scale)
    assert [("started", 1), ("failed", 1)] == story(heard, 0)
    assert ["worker_started"] == [one.kind for one in heard if one.key is None]


def test_a_task_that_a_stop_finds_between_two_attempts_is_told():
    """A task that waits for a retry at a stop is "failed" without another start."""
    seen = threading.Event()

    def hear(event):
        heard.append(event)
        if event.kind == "retrying":
            seen.set()

    heard = []
    tasks = {"retried": lambda: 1 / 0, "fails": Task(lambda: seen.wait(60) and 1 / 0, retries=0)}
    never = Retry(1, delay=1e9, max_delay=1e9)  # any time up to that
    run_parallel(tasks, retries=never, max_failures=1, on_event=hear)
    assert [("started", 1), ("retrying", 1), ("failed", 1)] == story(heard, "retried")
    assert (None, TaskCancelled) == (heard[-1].duration, type(heard[-1].error))


def test_a_task_that_a_stop_finds_told_to_wait_is_told():
    """A task that waits because the service asked it to is "failed" at a stop, although it has made no attempt that counts."""

    def refuse():
        raise REFUSED

    heard, limits = [], RateLimit(9, per=60)
    with inline_runs():
        tasks = {"told": refuse, "fails": lambda: 1 / 0}
        results = run_parallel(tasks, max_failures=1, limits=limits, on_event=heard.append)
    assert 0 == results.failures["told"].attempts
    assert [("started", 1), ("waiting", 1), ("failed", 1)] == story(heard, "told")


def test_a_listener_that_raises_is_logged_once_and_hears_no_more(caplog):
    """A listener that raises is logged once and not called again; the run goes on."""
    heard = []

    def hear(event):
        heard.append(event)
        raise RuntimeError("deaf")

    with caplog.at_level(logging.WARNING, "parallelkit"):
        assert [1, 2, 3] == run_parallel(abs, [-1, -2, -3], on_event=hear).values()
    assert 1 == len(heard)
    assert 1 == sum("on_event failed" in record.message for record in caplog.records)


def test_events_are_frozen():
    """Events cannot be changed."""
    event = run_and_hear(abs, [1])[0]
    assert isinstance(event, Event)
    with pytest.raises(AttributeError):
        event.kind = "other"


# Three monitors, as the docs show them.


def test_a_json_lines_log(tmp_path):
    """A listener can write a JSON-lines log."""
    path = tmp_path / "events.jsonl"
    with path.open("w") as file:

        def log(event):
            line = {"at": event.at, "kind": event.kind, "key": event.key, "error": repr(event.error)}
            file.write(json.dumps(line) + "\n")

        run_parallel(abs, range(3), on_event=log)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {0, 1, 2} == {line["key"] for line in lines if line["kind"] == "succeeded"}


def test_a_prometheus_counter():
    """A listener can keep Prometheus counters of outcomes, and a gauge of running tasks."""
    prometheus = pytest.importorskip("prometheus_client", reason="installed with the test extra")
    registry = prometheus.CollectorRegistry()
    ended = prometheus.Counter("tasks", "Attempts by how they ended", ["kind"], registry=registry)
    running = prometheus.Gauge("running", "Attempts that run now", registry=registry)

    def count(event):
        if event.kind == "started":
            running.inc()
        elif event.kind in ("succeeded", "failed", "retrying"):
            running.dec()
            ended.labels(event.kind).inc()

    run_parallel(lambda n: 1 / n, range(5), retries=AT_ONCE, on_event=count)
    assert 4.0 == registry.get_sample_value("tasks_total", {"kind": "succeeded"})
    assert 1.0 == registry.get_sample_value("tasks_total", {"kind": "retrying"})
    assert 0.0 == registry.get_sample_value("running")


def test_opentelemetry_spans_in_threads():
    """Tasks in threads have the caller's OpenTelemetry span as their parent."""
    trace = pytest.importorskip("opentelemetry.sdk.trace", reason="installed with the test extra")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    provider = trace.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    tracer = provider.get_tracer("test")

    def task(n):
        with tracer.start_as_current_span(f"task {n}"):
            return n

    with tracer.start_as_current_span("run") as run:
        run_parallel(task, range(3))
    children = [span for span in spans.get_finished_spans() if span.name.startswith("task")]
    assert 3 == len(children)
    assert {run.get_span_context().span_id} == {span.parent.span_id for span in children}
    provider.shutdown()


def test_a_retry_that_is_no_longer_made_is_told_when_that_is_decided():
    """The event of a task whose next attempt will not come has the instant of that, not of its last attempt's end."""
    news = news_of_lapsed(0, Lost(OSError(), 2, 1.0, 3.0, "thread_0"), 9.0)
    assert (None, 9.0, None, 2) == (news.lost.started, news.lost.ended, news.lost.worker, news.lost.number)
