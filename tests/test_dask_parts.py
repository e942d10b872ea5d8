"""The parts of the dask engine by themselves: the broker's book, clocks and versions. No cluster is started."""

import asyncio
import pickle
import signal
from array import array
from math import inf
from platform import python_version
from threading import Event, Thread
from time import monotonic, sleep
from types import SimpleNamespace
from unittest.mock import Mock

import cloudpickle
import pytest
from patience import PATIENCE, wait_until

from parallelkit._executors._cluster import _broker, _guard, _scatter
from parallelkit._executors._cluster._broker import PREFIX, Broker, install
from parallelkit._executors._cluster._client_run import ALONE, ClientRun
from parallelkit._executors._cluster._clock import RENEW, Clock
from parallelkit._executors._cluster._compatibility import ByValue, check_cluster
from parallelkit._executors._cluster._guard import Guard, compare, guard_of
from parallelkit._executors._cluster._in_flight import InFlight
from parallelkit._executors._cluster._pending import Pending
from parallelkit._executors._cluster._scatter import Scatterer
from parallelkit._executors._cluster._sizes import Sizes
from parallelkit._executors._cluster._wire import (
    Order,
    Report,
    clock_id,
    pack_died,
    pack_record,
    pack_span,
    unpack_columns,
    unpack_died,
    unseal,
)
from parallelkit._executors._cluster._worker_run import Sight, WorkerRun, _uncover
from parallelkit._executors._contract import Job
from parallelkit._executors._dask import DaskPort
from parallelkit._executors._process._culprit import pack_job
from parallelkit._executors._process._holding import LOOK
from parallelkit._executors._process._lane import Batch, Broken, Died, Lane, RawColumns, Record, Span, Why
from parallelkit._executors._process._pace import Pace

HERE, THERE = "tcp://127.0.0.1:1", "tcp://127.0.0.1:2"


class Scheduler:
    """The part of a dask scheduler that the broker uses."""

    def __init__(self):
        self.total_nthreads = 2
        self.workers = {HERE: None, THERE: None}
        self.tasks = {}
        self.idle = {}
        self.plugins = {}
        self.ended = []

    def add_plugin(self, plugin, name):
        assert name not in self.plugins
        self.plugins[name] = plugin

    def remove_plugin(self, name):
        del self.plugins[name]

    def rpc(self, worker):
        async def end(run):
            self.ended.append((worker, run))
            if worker == THERE:
                raise OSError("its guard is gone")
            return b"the last"

        return SimpleNamespace(parallelkit_end=end)


class Book:
    """A broker with one run, and its batches by number."""

    def __init__(self):
        self.scheduler = Scheduler()
        self.broker = Broker(self.scheduler, "the broker")

    def key(self, number):
        return f"{PREFIX}run-{number}"

    def place(self, number):
        self.scheduler.tasks[self.key(number)] = SimpleNamespace(processing_on=None)
        self.broker.transition(self.key(number), "waiting", "processing")

    def forget(self, number):
        del self.scheduler.tasks[self.key(number)]
        self.broker.transition(self.key(number), "released", "forgotten")

    async def claim(self, number, worker=HERE, granted=1):
        return await self.broker.claim(self.key(number), worker, granted)

    async def tell(self, blob, over=(), wanted=(), worker=HERE):
        over, wanted = map(self.key, over), {self.key(number): upto for number, upto in dict(wanted).items()}
        return await self.broker.tell("run", worker, blob, list(over), wanted)

    def news(self):
        return self.broker.runs["run"].take_now()


@pytest.fixture
def book():
    return Book()


def with_a_run(test):
    """Run a test's coroutine with the run open."""

    async def body(book):
        await book.broker.open("run", "client")
        await test(book)

    return lambda book: asyncio.run(body(book))


def test_a_batch_is_given_away_once(book):
    """A batch is given away once, whatever dask does with it, and not to an unknown worker, nor after it was forgotten."""

    @with_a_run
    async def check(book):
        book.place(1)
        assert await book.claim(1)
        assert not await book.claim(1)
        book.place(1)
        assert not await book.claim(1, THERE), "dask has placed it again"
        assert not await book.claim(2), "it was never placed"
        book.place(3)
        book.forget(3)
        assert not await book.claim(3), "the client has given it up"
        book.place(4)
        assert not await book.claim(4, "tcp://127.0.0.1:9"), "no worker of this scheduler"

    check(book)


def test_a_lost_worker_costs_what_it_had_claimed(book):
    """A lost worker costs only what it had claimed; batches that were only placed there can be claimed elsewhere, and it is not heard any more."""

    @with_a_run
    async def check(book):
        for number in (1, 2, 3):
            book.place(number)
        assert await book.claim(1)
        assert await book.claim(2)
        assert await book.tell(b"done", [2]) is not None
        del book.scheduler.workers[HERE]
        book.broker.remove_worker(book.scheduler, HERE)
        assert [("told", b"done", [book.key(2)]), ("lost", HERE, [(book.key(1), 1)])] == book.news()[:2]
        assert await book.tell(b"too late", [1]) is None
        assert not await book.claim(1, THERE)
        assert [] == book.broker.runs["run"].belonging_to(HERE)
        assert await book.claim(3, THERE)
        await book.broker.close("run")
        assert [(THERE, "run")] == book.scheduler.ended, "nobody asks the lost one"

    check(book)


def test_a_batch_is_begun_only_as_far_as_it_was_granted(book):
    """Attempts of a batch begin only if granted, so that the others can run elsewhere if the worker is lost."""

    @with_a_run
    async def check(book):
        for number in (1, 2, 3):
            book.place(number)
            assert await book.claim(number, granted=10)
        assert [book.key(1)] == await book.tell(b"", over=[3], wanted={1: 30, 3: 30}), "what is over is"
        assert [] == await book.tell(b"", over=[1], wanted={2: 30}, worker=THERE), "they are not its batches"
        del book.scheduler.workers[HERE]
        book.broker.remove_worker(book.scheduler, HERE)
        assert await book.tell(b"", wanted={2: 30}) is None
        assert ("lost", HERE, [(book.key(1), 30), (book.key(2), 10)]) in book.news()
        assert {} == book.broker.runs["run"].granted

    check(book)


def test_nothing_is_granted_while_a_run_is_being_closed(book):
    """While a run is being closed, nothing is granted."""

    @with_a_run
    async def check(book):
        book.place(1)
        assert await book.claim(1)
        book.broker.runs["run"].closing = True
        assert [] == await book.tell(b"", wanted={1: 2})

    check(book)


def test_what_others_cancel_is_returned_or_ends(book):
    """A batch that others cancel returns to the client if it was not claimed; otherwise its guard goes on."""

    @with_a_run
    async def check(book):
        book.place(1)
        book.place(2)
        assert await book.claim(2)
        book.forget(1)
        book.forget(2)
        assert [("returned", [book.key(1)], "", [])] == book.news()
        assert await book.tell(b"done", [2]) == []
        assert [("told", b"done", [book.key(2)])] == book.news()
        assert {} == book.broker.runs["run"].batches

    check(book)


def test_a_batch_that_ends_with_an_error_is_lost_or_returned(book):
    """If a guard fails, what it had claimed is lost; if workers refuse a batch, the client hears why, but not of workers that dask suspects."""

    @with_a_run
    async def check(book):
        for number, text in enumerate(["RuntimeError: it does not fit", "KilledWorker: three died"]):
            book.place(number)
            book.scheduler.tasks[book.key(number)].exception_text = text
            book.scheduler.tasks[book.key(number)].erred_on = {THERE}
            book.broker.transition(book.key(number), "processing", "erred")
        returned = ("returned", [book.key(0)], "RuntimeError: it does not fit", [THERE])
        assert [returned, ("returned", [book.key(1)], "", [])] == book.news()
        book.place(2)
        assert await book.claim(2, granted=7)
        book.broker.transition(book.key(2), "processing", "erred")
        assert [("lost", HERE, [(book.key(2), 7)])] == book.news()
        assert [] == await book.tell(b"", wanted={2: 9}), "it is not granted any more"
        assert {} == book.broker.runs["run"].granted

    check(book)


def test_a_client_hears_each_news_once(book):
    """A client is answered as soon as there is news, and hears each once; of many workers that come or go, it hears once. The end of the run is an answer, too."""

    @with_a_run
    async def check(book):
        book.place(1)
        assert await book.claim(1)
        for happens, news in (
            (lambda: book.broker.runs["run"].tell("told", b"done"), ("told", b"done")),
            (lambda: book.broker.add_worker(book.scheduler, THERE), ("width", 2, [HERE, THERE])),
            (lambda: book.broker.remove_worker(book.scheduler, THERE), ("width", 2, [HERE, THERE])),
        ):
            asking = asyncio.ensure_future(book.broker.take("run"))
            await asyncio.wait([asking], timeout=0.01)
            assert not asking.done()
            happens()
            if news[0] == "width":
                happens()
            assert [news] == await asyncio.wait_for(asking, 5)
        asking = asyncio.ensure_future(book.broker.take("run"))
        await asyncio.wait([asking], timeout=0.01)
        await book.broker.close("run")
        assert [] == await asyncio.wait_for(asking, 5)

    check(book)


def test_a_client_without_news_is_answered_in_time(book, monkeypatch):
    """A client that has waited long is answered though nothing has happened, and asks again: its connection is not idle for ever."""
    monkeypatch.setattr(_broker, "POLL_LIMIT", 0.01)

    @with_a_run
    async def check(book):
        assert [] == await book.broker.take("run") == await book.broker.take("run")

    check(book)


def test_tasks_of_others_are_passed_over(book):
    """Others may use the cluster at the same time, and dask's keys may be tuples."""

    @with_a_run
    async def check(book):
        for key in ("theirs", ("theirs", 0)):
            book.broker.transition(key, "waiting", "processing")
            book.broker.transition(key, "processing", "erred")
        assert ([], {}) == (book.news(), book.broker.runs["run"].batches)

    check(book)


def test_a_run_is_closed_with_its_last_news(book):
    """The close of a run returns what was not taken, and what guards have committed, even if one fails; other runs go on."""

    @with_a_run
    async def check(book):
        await book.broker.open("other", "client")
        for number, worker in ((1, HERE), (2, THERE)):
            book.place(number)
            assert await book.claim(number, worker)
        await book.tell(b"done", [1])
        closing = asyncio.ensure_future(book.broker.close("run"))
        await asyncio.sleep(0)
        book.place(3)
        assert not await book.claim(3)
        assert [("told", b"done", [book.key(1)]), ("told", b"the last")] == await closing
        assert {(HERE, "run"), (THERE, "run")} == {*book.scheduler.ended}
        assert ["the broker"] == list(book.scheduler.plugins)
        assert [] == await book.broker.close("other") == await book.broker.close("other")
        assert {} == book.scheduler.plugins
        assert await book.tell(b"too late") is None

    check(book)


def test_what_waits_behind_others_is_returned_where_threads_are_free(book):
    """Batches that wait at a busy worker while threads are free elsewhere return to the client: at the second look, and no more than find a thread."""

    @with_a_run
    async def check(book):
        busy, quick = (SimpleNamespace(processing=range(number), nthreads=2) for number in (3, 2))
        for number, worker in ((1, busy), (2, busy), (3, quick)):
            book.place(number)
            book.scheduler.tasks[book.key(number)].processing_on = worker
        for free, returned in ((0, []), (1, [1]), (9, [2]), (9, [])):
            book.scheduler.idle = {THERE: SimpleNamespace(processing=[], nthreads=free)}
            book.broker._seen.clear()
            book.broker._look()
            assert bool(returned) == book.broker._looking, "whether it looks again"
            assert [] == book.news()
            book.broker._look()
            assert [("returned", [book.key(number)], "", []) for number in returned] == book.news()
        assert [False, False, True] == [await book.claim(number, THERE) for number in (1, 2, 3)]

    check(book)


def test_the_end_of_a_client_is_the_end_of_its_runs(book):
    """When a client ends, its runs end on all workers that have begun something, and the plugin is removed."""

    @with_a_run
    async def check(book):
        book.place(1)
        book.place(2)
        assert await book.claim(1)
        book.broker.remove_client(book.scheduler, "another client")
        assert [] == book.scheduler.ended
        book.broker.remove_client(book.scheduler, "client")
        assert not await book.claim(2, THERE), "nothing begins any more"
        await asyncio.gather(*book.broker._closers)
        assert [(HERE, "run")] == book.scheduler.ended
        assert {} == book.scheduler.plugins
        assert await book.broker.take("run") is None

    check(book)


def test_workers_at_work_are_not_chosen_for_closing(book):
    """An adaptive cluster does not close workers that run something."""

    @with_a_run
    async def check(book):
        book.place(1)
        assert await book.claim(1)
        workers = [SimpleNamespace(address=HERE), SimpleNamespace(address=THERE)]
        left = book.broker.valid_workers_downscaling(book.scheduler, workers)
        assert [THERE] == [worker.address for worker in left]

    check(book)


def test_each_version_has_a_broker_of_its_own_in_a_scheduler():
    """Each version of the package has its own broker in a scheduler, shared by all clients of that version."""
    handlers = {"retire_workers": None}
    scheduler = SimpleNamespace(handlers=handlers)
    install("parallelkit-1", scheduler)
    first = dict(handlers)
    install("parallelkit-1", scheduler)
    assert first == handlers
    install("parallelkit-2", scheduler)
    assert handlers["parallelkit-1_claim"] is first["parallelkit-1_claim"]
    assert {"open", "take", "close", "claim", "tell"} == {
        name.removeprefix("parallelkit-2_") for name in handlers.keys() - first
    }


@pytest.mark.parametrize(
    ("duration", "workers", "batch", "portion"),
    [
        (0.0, 2, 2000, 801),
        (0.00099, 2, 50, 21),
        (0.021, 2, 2, 1),
        (1.0, 2, 1, 1),
        (0.00099, 100, 505, 203),
        (0.00099, 1000, 505, 2021),
    ],
)
def test_portions_are_of_so_much_work(duration, workers, batch, portion):
    """A portion is a fixed amount of work, and one attempt more; it grows with the number of workers. An exact run has one attempt at a time."""
    sizes = Sizes(Pace(), False, threads=workers, workers=workers)
    assert (1, 1) == (sizes.batch(10**6), sizes.portion), "nothing is known yet"
    sizes.measure(10, 10 * duration)
    assert min(4, batch) == sizes.batch(10**6), "the first attempts may have been the shortest"
    for _ in range(10):
        sizes.measure(10, 10 * duration)
    assert (batch, portion) == (sizes.batch(10**6), sizes.portion)
    assert 3 == sizes.batch(3 * workers) or batch < 3
    exact = Sizes(sizes.pace, True, threads=workers, workers=workers)
    assert (1, 1) == (exact.batch(10**6), exact.portion)
    assert 1 == Sizes(Pace(), False).batch(10**6), "no worker has joined yet"


# A guard


def test_a_batch_asks_in_time_and_never_has_more_than_its_portion_open():
    """A batch asks for grants in time, and never has more open than its portion; what was not granted can be taken away."""
    lane = Lane(0, b"", False)
    pending = Pending("key", [(index, 1, index, None) for index in range(20)], None, portion=6)
    began = list(pending.part(lane, 0, 6).tickets)
    for done in (1, 1, 1, 4, 2, 0, 3):
        pending.count(done)
        if pending.is_low:
            began += pending.grant(lane, pending.wanted).tickets
        assert began == [(index, 1, index, None) for index in range(len(began))]
        assert pending.granted == len(began)
    assert 18 == pending.granted, "six are open, and there was no need to ask before three were left"
    assert [18, 19] == pending.withdraw()
    assert not pending.is_low
    pending.count(6)
    assert pending.is_over


def order(number, count=1, **about):
    return Order(
        **{"key": f"{PREFIX}run-{number}", "run": "run", "exact": False, "expected": 1.0, "rest": 0.0}
        | {"portion": 1, "job": b"", "indices": range(count), "numbers": [1] * count}
        | {"timeouts": [None] * count, "items": [0] * count, "payloads": None}
        | about
    )


def test_a_batch_is_of_items_of_one_form_and_ends_with_a_large_one():
    """What was queued in parts goes out together, but not atoms with packed items, nor anything after what is scattered."""
    lane = Lane(0, b"", False)
    client_run = ClientRun(None, lane, b"", None, print)
    tickets = [(index, 1, index, None) for index in range(7)]
    for index, payload in enumerate([None, None, b"2", b"3", bytes(ALONE), b"5", None]):
        lane.queue.append(Batch(lane, [tickets[index]], None if payload is None else [payload]))
    batches = [client_run._take(10) for _ in range(4)]
    assert [tickets[:2], tickets[2:5], tickets[5:6], tickets[6:]] == [batch.tickets for batch in batches]
    assert [None, [b"2", b"3", bytes(ALONE)], [b"5"], None] == [batch.payloads for batch in batches]


def test_a_large_function_is_sent_once_and_before_any_batch():
    """No batch is handed out while the function is being sent: it would travel with each."""
    arrivals, sent = [], []
    lane = Lane(0, b"", False)
    client = SimpleNamespace(submit=lambda *given, key, **options: sent.append(key))
    client_run = ClientRun(client, lane, b"", None, print)
    client_run._scatterer = SimpleNamespace(send=lambda blob, arrived, everywhere: arrivals.append(arrived))
    client_run._hear_width(1, [HERE])
    client_run._send_job()
    client_run._send_job()
    client_run.offer(Batch(lane, [(0, 1, "item", None)], None))
    assert ([], 1) == (sent, len(arrivals))
    arrivals[0](SimpleNamespace(key="where dask keeps it"))
    assert [f"{PREFIX}{client_run.run}-0"] == sent


@pytest.mark.parametrize(
    ("cap", "threads", "under_way", "has_room"),
    [
        (None, 2, 3, True),
        (None, 2, 4, False),
        (None, 0, 31, True),
        (None, 0, 32, False),
        (4, 9, 3, True),
        (4, 9, 4, False),
    ],
)
def test_so_many_batches_are_under_way(cap, threads, under_way, has_room):
    """Twice as many as there are threads, some if there are none yet, and no more tasks than ``max_workers``."""
    lane = Lane(0, b"", False)
    client_run = ClientRun(None, lane, b"", cap, print)
    client_run._hear_width(threads, [])
    for index in range(under_way):
        client_run._in_flight.enter(f"{index}", Batch(lane, [(index, 1, "item", None)], None))
    lane.queue.append(Batch(lane, [(index, 1, "item", None) for index in range(100, 200)], None))
    assert has_room == (client_run._room() > 0)


@pytest.mark.parametrize(
    ("answers", "closed", "told"),
    [
        ([OSError(), ["a future"]], False, ["a future"]),
        ([["a future"]], True, []),
        ([ValueError("it is too large")], False, ["ValueError('it is too large')"]),
    ],
    ids=["again", "closed", "refused"],
)
def test_what_is_scattered_arrives_or_is_refused(answers, closed, told, monkeypatch):
    """If a worker leaves meanwhile, it is sent again; if dask refuses it, the run hears of that; and a run that is over hears nothing."""
    monkeypatch.setattr(_scatter, "AGAIN", 0)
    heard = []
    scatterer = Scatterer(None, lambda error: heard.append(repr(error)))

    async def scatter(blobs, **options):
        scatterer._closed = closed
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    scatterer._client = SimpleNamespace(scatter=scatter)
    asyncio.run(scatterer._scatter(b"large", heard.append, everywhere=True))
    assert (told, []) == (heard, answers)


def test_what_a_guard_gives_back_is_handed_out_anew():
    """Attempts that did not begin are in the queue again; if that was because the function is gone with the worker that had it, it is sent again."""
    lane, sent, widths = Lane(0, b"", False), [], []
    client_run = ClientRun(None, lane, b"", None, widths.append)
    client_run._hear_width(3, [HERE])
    client_run._scattered, client_run._send_job = "what is gone", lambda: sent.append("again")
    for key, indices in (("one", range(3)), ("two", range(3, 4))):
        client_run._in_flight.enter(key, Batch(lane, [(index, 1, "item", None) for index in indices], None))
    report = Report("a host", begun=[(0, 1.0, "a process")], unbegun=[1, 2, 3], missing=True)
    client_run._hear_told(report.seal(), ["two"])
    assert [1, 2, 3] == [ticket[0] for batch in lane.queue for ticket in batch.tickets]
    assert ({0: (1.0, "a process")}, ["one"]) == (client_run.begun, [*client_run._in_flight.batches])
    assert (["again"], [3]) == (sent, widths)


def test_a_run_ends_if_dask_takes_no_tasks():
    """A client that is closed while a run goes on, say, refuses tasks; the run does not wait for them."""
    lane = Lane(0, b"", False)
    client = SimpleNamespace(submit=lambda *given, **options: 1 / 0)
    client_run = ClientRun(client, lane, b"", None, print)
    client_run._hear_width(1, [HERE])
    client_run.offer(Batch(lane, [(0, 1, "item", None)], None))
    assert "dask does not take tasks any more" == lane.broken.reason
    assert isinstance(lane.broken.cause, ZeroDivisionError)


class Stop(Exception):
    """Raised by the handler of a signal."""


def struck(*given, **options):
    """What a client does while a signal arrives."""
    signal.raise_signal(signal.SIGUSR1)


@pytest.fixture
def _raising_handler():
    def handler(*_):
        raise Stop

    before = signal.signal(signal.SIGUSR1, handler)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("_raising_handler")
def test_what_a_handler_raises_as_a_batch_is_handed_to_dask_comes_out():
    """It is not taken for dask's refusal, with which the run would end without an error."""
    lane = Lane(0, b"", False)
    client_run = ClientRun(SimpleNamespace(submit=struck), lane, b"", None, print)
    client_run._hear_width(1, [HERE])
    with pytest.raises(Stop):
        client_run.offer(Batch(lane, [(0, 1, "item", None)], None))
    assert lane.broken is None


@pytest.mark.usefixtures("_raising_handler")
def test_what_a_handler_raises_as_a_run_on_dask_is_ended_comes_out():
    """It is not taken for a lost connection, and the run can be ended once more."""
    client = SimpleNamespace(scheduler=Mock(), sync=struck)
    client_run = ClientRun(client, Lane(0, b"", False), b"", None, print)
    with pytest.raises(Stop):
        client_run.close()
    asked = []
    client.sync = lambda *given, **options: asked.append(given)
    client_run.close()
    assert asked


def test_what_a_handler_raises_as_the_thread_of_a_run_on_dask_starts_comes_out(monkeypatch):
    """The run can be closed then, though the thread is there and has yet to say so."""
    there, may_go_on = Event(), Event()

    class Started(Event):
        def set(self):
            there.set()
            assert may_go_on.wait(PATIENCE)
            super().set()

        def wait(self, timeout=None):
            assert there.wait(PATIENCE)
            raise Stop

    monkeypatch.setattr("parallelkit._conditions.Event", Started)
    client = SimpleNamespace(
        id="client", loop=Mock(), scheduler=Mock(), sync=lambda *given, **options: (1, [HERE])
    )
    client_run = ClientRun(client, Lane(0, b"", False), b"", None, print)
    monkeypatch.setattr(client_run, "_read", lambda news: None)
    try:
        with pytest.raises(Stop):
            client_run.open()
        client_run.close()
    finally:
        may_go_on.set()


def test_a_run_ends_if_the_processes_beside_a_worker_cannot_go_on():
    """The reason is told with the host; what tasks have logged there is handed on, also what came after its task's end."""
    lane = Lane(0, b"", False)
    client_run = ClientRun(None, lane, b"", None, print)
    records = [Record(b"in time", (3, 1, "item", None)), Record(b"late", None)]
    report = Report("a host", records=list(map(pack_record, records)), broken="nothing works")
    client_run._hear_told(report.seal())
    assert [Record(b"in time", (3, 1, None, None)), records[1]] == [*lane.events]
    assert "nothing works on a host" == lane.broken.reason


def test_a_run_ends_when_no_worker_is_left_that_fits():
    """What a worker refuses, since it does not fit the program, goes to the others; once there are none, the run ends and says why."""
    lane = Lane(0, b"", False)
    client_run = ClientRun(None, lane, b"", None, print)
    client_run._hear_returned([], "", [])  # no worker has come yet
    client_run._hear_width(2, [HERE, THERE])
    batch = Batch(lane, [(0, 1, "item", None)], None)
    for worker, others in ((THERE, [HERE]), (HERE, [])):
        assert lane.broken is None
        client_run._in_flight.enter(f"for {worker}", batch)
        client_run._hear_returned([f"for {worker}"], "RuntimeError: it does not fit", [worker])
        assert {"workers": others} == client_run._placing()
        assert batch == lane.queue.popleft()
        assert {} == client_run._in_flight.batches
    assert (
        "no dask worker is left that fits this program: RuntimeError: it does not fit" == lane.broken.reason
    )


def test_of_a_lost_worker_only_what_was_granted_and_not_given_back_is_lost():
    """What has ended, was given back or was handed out anew is none of a lost batch; what was not granted is first in the queue."""
    lane = Lane(0, b"", False)
    in_flight = InFlight(lane)
    plain, packed = [[(index, 1, index, None) for index in some] for some in (range(3), range(3, 7))]
    in_flight.enter("plain", Batch(lane, plain, None))
    in_flight.enter("packed", Batch(lane, packed, [b"3", b"4", b"5", b"6"]))
    for index in (0, 4):
        in_flight.note_begun(index, 1.0, "a process")
    in_flight.land([0])
    in_flight.note_begun(0, 1.0, "a process")
    assert {4: (1.0, "a process")} == in_flight.begun
    in_flight.put_back([1, 5, 0])
    assert [Batch(lane, plain[1:2], None), Batch(lane, packed[2:3], [b"5"])] == [*lane.queue]
    in_flight.enter("anew", lane.queue.popleft())
    assert [2] == in_flight.still_in("plain")
    (first, second) = in_flight.lose("packed", 3, "its host")
    assert [(packed[0], "its host"), (packed[1], "a process")] == [
        (lost.batch.tickets[0], lost.worker) for lost in (first, second)
    ]
    assert (1.0, {}) == (second.started, in_flight.begun)
    assert [Batch(lane, packed[3:], [b"6"]), Batch(lane, packed[2:3], [b"5"])] == [*lane.queue]
    assert ["plain", "anew"] == [*in_flight.batches]
    assert [] == in_flight.lose("packed", 3, "its host") == in_flight.still_in("packed")


def test_a_guard_begins_nothing_of_a_run_that_has_ended():
    """What was claimed just before its run ended, or the dask worker began to close, is not begun: nobody would end it."""
    worker = SimpleNamespace(state=SimpleNamespace(nthreads=1), address=HERE, id="its id")
    worker.handlers, worker.plugins = {}, {}
    guard = guard_of(worker)
    assert (guard, {"parallelkit_end": guard.end_run}) == (guard_of(worker), worker.handlers)
    assert guard._end("run") is None
    assert guard._worker_run_of(order(1)) is None
    running = guard._worker_run_of(order(2, run="another"))
    (plugin,) = worker.plugins.values()
    asyncio.run(plugin.teardown(worker))
    running._thread.join(10)
    assert (True, []) == (running._lane.closed, guard._supervisors)
    assert guard._worker_run_of(order(3, run="a third")) is None
    assert guard is not guard_of(worker), "a closed one is not kept"
    asyncio.run(guard_of(worker).teardown(worker))


def test_a_guard_closes_without_a_thread_if_nothing_runs(monkeypatch):
    """A local cluster may close as the interpreter ends, when no thread can be had; dask would print the error of that."""
    monkeypatch.setattr("concurrent.futures.thread._shutdown", True)
    worker = SimpleNamespace(state=SimpleNamespace(nthreads=1), address=HERE, id="its id")
    guard = Guard(worker)
    guard._worker_run_of(order(1))
    guard._let_go("run")
    asyncio.run(guard.teardown(worker))
    assert guard._worker_run_of(order(2)) is None


def test_a_guard_that_closes_ends_a_run_that_is_being_made(monkeypatch):
    """Its processes would be left otherwise, if the dask worker's own process lives on."""
    worker = SimpleNamespace(state=SimpleNamespace(nthreads=1), address=HERE, id="its id")
    guard = Guard(worker)
    closing = Thread(target=lambda: asyncio.run(guard.teardown(worker)), daemon=True)

    def make(*about):
        closing.start()
        closing.join(0.02)  # it has to wait for what is made here
        return WorkerRun(*about)

    monkeypatch.setattr(_guard, "WorkerRun", make)
    running = guard._worker_run_of(order(1))
    closing.join(10)
    assert (True, {}, []) == (running._lane.closed, guard._worker_runs, guard._supervisors)
    running._thread.join(10)


def test_what_a_process_committed_comes_as_it_was_but_for_its_instants():
    """Results travel as the process wrote them, with the keys and classes to which they refer; instants are put on this machine's clock."""
    began, ended = array("d", [1.0, 2.0]), array("d", [2.0, 3.0])
    columns = RawColumns(began, ended, b"kinds", b"words", b"heap", 3, [], b"keys", [b"a class"])
    packed = pack_span(
        Span(Batch(Lane(1, b"", False), order(1, 2).tickets(), None), columns, "a process"), "a host"
    )
    assert columns == unpack_columns(packed, 0.0, 2.5)
    shifted = columns._replace(started=array("d", [0.5, 1.5]), ended=array("d", [1.5, 2.25]))
    assert shifted == unpack_columns(packed, 0.5, 2.25)
    assert ([0, 1], "a process on a host") == ([*array("q", packed[0])], packed[-1])
    batch = Batch(Lane(1, b"", False), order(1).tickets(), None)
    died = Died(batch, 1.0, 3.0, 4321, -9, Why.ITSELF, "a process", "its stack")
    for shift, began, ended in ((0.0, 1.0, 3.0), (0.5, 0.5, 2.25)):
        known = died._replace(started=began, ended=ended, worker="a process on a host")
        assert known == unpack_died(pack_died(died, "a host"), batch, shift, 2.25)


@pytest.mark.parametrize("what", ["spans", "died", "records", "begun", "unbegun"])
def test_a_report_is_sent_if_there_is_anything_in_it(what):
    """What is reported does not wait for something else, be it only that a task has logged something."""
    assert not Report("a host")
    assert Report("a host", **{what: [()]})


def test_a_run_that_ends_while_its_function_is_fetched_begins_nothing():
    """A function that takes long to arrive at a dask worker is not called if its run ends meanwhile, also if the processes stay for another run."""
    guard = Guard(SimpleNamespace(state=SimpleNamespace(nthreads=1), address=HERE))
    guard._worker_run_of(order(2, run="another"))
    worker_run = guard._worker_run_of(batch := order(1))
    runner = Thread(target=worker_run.run, args=(batch, lambda job: guard._end("run") or job), daemon=True)
    runner.start()
    runner.join(10)
    assert not runner.is_alive()
    assert [] == guard._supervisors[-1].pool.lanes
    guard._end("another")


def test_a_batch_whose_function_is_gone_is_given_back():
    """If the workers that had a large function or item are gone, the batch ends here, and the client hears why."""
    told = []
    supervisor = SimpleNamespace(ask=lambda question: [])
    worker_run = WorkerRun("run", False, supervisor, "a host", lambda *news: told.append(news) or [])
    worker_run.run(order(1, 2), {}.__getitem__)
    worker_run.drop()
    ((run, blob, over, wanted),) = told
    assert ("run", [f"{PREFIX}run-1"], {}) == (run, over, wanted)
    assert ([0, 1], True) == (unseal(blob).unbegun, unseal(blob).missing)


def test_a_look_tells_once_what_has_begun_and_gives_back_what_will_not():
    """The start of an attempt is told once. If it takes long, those of its batch that were not granted run elsewhere, and looks become rare."""
    sight = Sight([(0, 9.5, "a process")], [], False)
    supervisor = SimpleNamespace(ask=lambda question: sight, pool=SimpleNamespace(lanes=[]), broken=None)
    worker_run = WorkerRun("run", False, supervisor, "a host", lambda *_: [])
    pending = Pending("key", [(index, 1, index, None) for index in range(4)], None, 2)
    worker_run._pendings[pending.key] = pending
    worker_run._owners = dict.fromkeys(range(4), pending)
    worker_run._patience = 1.0
    report = worker_run._report
    for now, unbegun, pause in ((10.0, [], 0.008), (10.5, [2, 3], 0.016), (11.0, [2, 3], 0.032)):
        worker_run._look(now)
        assert ([(0, 9.5, "a process on a host")], unbegun) == (report.begun, report.unbegun)
        assert now + pause == pytest.approx(worker_run._look_at)
    sight = sight._replace(withdrawn=[1])
    worker_run._look(12.0)
    assert ([2, 3, 1], [0]) == (report.unbegun, [*worker_run._owners])
    assert inf == worker_run._look_at, "there is nothing more to see"
    worker_run._settle([0])
    assert pending.over.is_set()
    supervisor.ask = lambda question: []
    worker_run.drop()


def test_what_is_granted_is_offered_to_the_processes_and_what_is_not_ends_here():
    """The next attempts of a batch are queued as they are granted; without a grant the batch is over with what has ended, and frees its thread."""
    granted, offers = ["key"], []
    supervisor = SimpleNamespace(ask=lambda question: [], offer=offers.append)
    worker_run = WorkerRun("run", False, supervisor, "a host", lambda *_: granted)
    pending = Pending("key", [(index, 1, index, None) for index in range(3)], None, 1)
    worker_run._pendings[pending.key] = pending
    worker_run._owners = dict.fromkeys(range(3), pending)
    for ended, offered in ((0, [1]), (1, [])):
        worker_run._settle([ended])
        worker_run._send(worker_run._find_wanted())
        assert offered == [ticket[0] for batch in offers for ticket in batch.tickets]
        granted.clear()
        offers.clear()
    assert ({}, ["key"]) == (worker_run._owners, worker_run._over)
    assert pending.over.is_set()
    worker_run.drop()


def at_work(lane, since, loading=False):
    """A worker process that has been at attempt 0 since then, or loads a function."""
    process = SimpleNamespace(lane=lane, label="a process", pending=1, wire=SimpleNamespace(loading=loading))
    process.running = lambda: None if loading else ((0,), since)
    process.stuck_since = lambda: since
    return process


def test_what_waits_is_given_back_once_and_only_if_all_processes_take_long():
    """What is queued at a dask worker goes elsewhere if no process there is, or will be, free for it soon; then it is not run here, too."""
    processes = []
    supervisor = SimpleNamespace(
        pool=SimpleNamespace(workers=processes, drop=lambda lane: []),
        max_workers=2,
        ask=lambda question: question(),
    )
    worker_run = WorkerRun("run", False, supervisor, "a host", None)
    worker_run._patience = 1.0
    lane = worker_run._lane
    waiting = Batch(lane, [(1, 1, None, None), (2, 1, None, None)], None)
    lane.queue.append(waiting)
    slow, quick, loads = at_work(lane, 0.0), at_work(lane, 9.5), at_work(lane, 0.0, loading=True)
    for present in ([slow], [slow, quick], [slow, loads]):
        processes[:] = present
        sight = worker_run._inspect(10.0)
        assert ([], True, [waiting]) == (sight.withdrawn, sight.more, [*lane.queue])
    processes[:] = [slow, slow]
    sight = worker_run._inspect(10.0)
    assert ([1, 2], False, []) == (sight.withdrawn, sight.more, [*lane.queue])
    worker_run.drop()


def test_what_a_process_holds_behind_a_slow_attempt_is_taken_back_in_order():
    """It is first held, and asked only when it has certainly seen that; what comes back is first in the queue, in its order."""
    lane, calls = Lane(1, b"", False), []
    first, second, third = (Batch(lane, [(n, 1, None, None)], None) for n in range(3))
    lane.queue.append(third)
    process = SimpleNamespace(pending=1, held=None, held_at=10.0, hold=calls.append)
    process.take_back = lambda: [first, second]
    _uncover(process, lane, 10.0)
    assert [] == calls, "nothing is behind"
    process.pending = 3
    _uncover(process, lane, 10.0)
    process.held = 1
    _uncover(process, lane, 10.0 + LOOK / 2)
    assert ([10.0], [third]) == (calls, [*lane.queue])
    _uncover(process, lane, 10.0 + LOOK)
    assert [first, second, third] == [*lane.queue]


def test_processes_that_cannot_go_on_are_told_of_and_replaced():
    """If the processes beside a worker cannot go on, the run ends and says why, and the next run has new ones."""
    told = []
    guard = Guard(SimpleNamespace(state=SimpleNamespace(nthreads=1), address=HERE))
    guard._tell = lambda run, blob, over, wanted: told.append((unseal(blob).broken, over)) or []
    worker_run = guard._worker_run_of(order(1))
    (broken,) = guard._supervisors
    broken.broken = Broken("nothing works")
    runner = Thread(target=worker_run.run, args=(order(1), bytes))
    runner.start()
    wait_until(lambda: told)
    assert [("nothing works", [f"{PREFIX}run-1"])] == told
    guard._worker_run_of(order(2, run="another"))
    _, sound = guard._supervisors
    guard._end("run")
    runner.join()
    assert (True, False) == (broken.closing, sound.closing)
    guard._end("another")
    assert [] == guard._supervisors


def test_results_that_cannot_be_reported_end_the_run():
    """If a dask worker has no memory left for a report, say, the client hears of that and does not wait for ever, and the processes end with the run."""
    told, called = [], Event()
    guard = Guard(SimpleNamespace(state=SimpleNamespace(nthreads=1), address=HERE))
    guard._tell = lambda run, blob, over, wanted: told.append(unseal(blob).broken) or called.set() or []
    worker_run = guard._worker_run_of(order(1))

    def short_of_memory(event):
        raise MemoryError

    worker_run._accept = short_of_memory
    worker_run._lane.events += [None, None]
    worker_run._lane.gate.open()
    assert called.wait(10)
    with pytest.raises(MemoryError):
        guard._end("run")
    assert ["what has ended cannot be reported (MemoryError)"] == told
    assert [] == guard._supervisors


@pytest.mark.parametrize("answer", [lambda *_, **__: None, lambda *_, **__: 1 / 0], ids=["none", "error"])
def test_a_run_of_which_nobody_hears_is_ended(answer):
    """If the broker does not know a run any more, or cannot be reached, the guard ends the run's processes, and its dask worker's threads are free."""
    guard = Guard(SimpleNamespace(state=SimpleNamespace(nthreads=1), address=HERE))
    guard.ask = answer
    batch = order(1, job=pack_job(Job(sleep)), items=[60.0])
    worker_run = guard._worker_run_of(batch)
    runner = Thread(target=worker_run.run, args=(batch, bytes), daemon=True)
    runner.start()
    for thread in (runner, worker_run._thread):
        thread.join(10)
        assert not thread.is_alive()
    assert [] == guard._supervisors


def test_what_ends_while_a_report_is_under_way_is_in_the_last_one():
    """A run that is ended while its guard waits for the broker's answer loses nothing of what was committed meanwhile; its client takes it in."""
    told, go_on = [], Event()
    guard = Guard(SimpleNamespace(state=SimpleNamespace(nthreads=1), address=HERE))
    guard._tell = lambda run, blob, over, wanted: told.append(blob) or (go_on.wait(30) and [])
    batch = order(1, 2, job=pack_job(Job(sleep)), items=[0.0, 0.1], portion=2)
    worker_run = guard._worker_run_of(batch)
    runner = Thread(target=worker_run.run, args=(batch, bytes))
    runner.start()
    wait_until(lambda: told)
    wait_until(lambda: worker_run._lane.events or not worker_run._owners)  # on a slow machine it told of both
    ending = Thread(target=lambda: told.append(guard._end("run")))
    ending.start()
    wait_until(lambda: worker_run._lane.closed)
    go_on.set()
    for thread in (ending, runner):
        thread.join()
    lane = Lane(0, b"", False)
    client_run = ClientRun(None, lane, b"", None, print)
    client_run._in_flight.enter(batch.key, Batch(lane, batch.tickets(), None))
    client_run._ask = lambda question, **about: [("told", blob) for blob in told if blob]
    client_run.close()
    assert [0, 1] == [ticket[0] for span in lane.events for ticket in span.batch.tickets]


def test_what_has_begun_is_told_although_nothing_ends():
    """The start of an attempt is reported some milliseconds later, also if a report was sent just before, and no other event comes."""
    told = []
    guard = Guard(SimpleNamespace(state=SimpleNamespace(nthreads=1), address=HERE))
    guard._tell = lambda run, blob, over, wanted: told.append(unseal(blob)) or []
    job = pack_job(Job(sleep))
    worker_run = guard._worker_run_of(order(1))
    worker_run.run(order(1, job=job), bytes)  # so that no new process wakes it
    wait_until(lambda: told)
    told.clear()
    worker_run._told_at = monotonic() + 0.1
    runner = Thread(target=worker_run.run, args=(order(2, job=job, items=[60.0]), bytes))
    runner.start()
    try:
        wait_until(lambda: told, 10)
    finally:
        guard._end("run")
        runner.join()
    assert [0] == [index for index, _, _ in told[0].begun]


# Clocks and versions


def test_a_clock_of_this_machine_is_ours():
    """Times of this machine's processes are not corrected."""
    assert clock_id()
    assert 0.0 == Clock().shift("here", clock_id(), 5.0, 7.0)


def test_another_clock_is_estimated_on_the_safe_side():
    """Another machine's clock is estimated by the fastest message: its times may appear later, but never earlier, than they were."""
    clock = Clock()
    ahead = 1000.0  # what nobody knows
    for came, way in [(10.0, 0.5), (11.0, 0.002), (12.0, 0.3)]:
        shift = clock.shift("there", "boot", came - way + ahead, came)
        assert shift <= ahead
    assert ahead - shift == pytest.approx(0.002)


def test_an_estimate_is_renewed():
    """Old clock measurements are dropped, because clocks drift, but not before there has been time for new ones."""
    clock = Clock()
    clock.shift("there", "boot", 1000.0, 0.0)
    shifts = [clock.shift("there", "boot", came + 999.0, came) for came in (RENEW + 1, 2 * RENEW + 2)]
    assert [1000.0, 999.0] == pytest.approx(shifts)


def test_a_difference_is_told_in_words():
    """A difference of versions is described in words; without one, the text is empty."""
    ours = {"Python": "3.11", "cloudpickle": "3.1.3"}
    assert "" == compare(ours, dict(ours))
    assert "Python is 3.12 there and 3.11 here" == compare(ours, {**ours, "Python": "3.12"})
    assert "cloudpickle is missing there and 3.1.3 here" == compare(ours, {"Python": "3.11"})


def test_an_asynchronous_client_is_refused():
    """A client whose methods return coroutines is refused in words: a run waits for their answers."""
    with pytest.raises(ValueError, match="executor must be a synchronous Client"):
        check_cluster(SimpleNamespace(asynchronous=True))


@pytest.mark.parametrize(
    ("scheduler", "answer", "fault"),
    [
        ("3.9.1", None, r"the scheduler of .* runs Python 3\.9\.1, this program "),
        (
            python_version(),
            TypeError("bad code"),
            r" \(and 1 more\) does not fit .*: Python is 3\.9\.1 there",
        ),
    ],
)
def test_a_cluster_of_another_python_is_refused(scheduler, answer, fault):
    """The versions are named."""

    class Client:
        asynchronous, status = False, "running"

        def run_on_scheduler(self, fn, *given):
            return scheduler

        def nthreads(self):
            return {HERE: 1, THERE: 2}

        def run(self, fn, *given, workers, on_error):
            return dict.fromkeys(workers, "3.9.1" if fn is python_version else answer)

    with pytest.raises(ValueError, match=fault):
        check_cluster(Client())


def test_what_goes_to_the_scheduler_by_value_changes_nothing_for_others():
    """Cloudpickle sends our module by value that once, and not in the program's own pickles."""
    assert b"_stuck" in pickle.dumps(ByValue(install))
    assert b"_stuck" not in cloudpickle.dumps(install)


@pytest.mark.parametrize("exact", [False, True])
def test_the_side_of_the_client_answers_what_a_port_asks_of_a_supervisor(exact):
    """A dask port is built on the port for local processes: without a supervisor or workers, it has room, waits, and says why its lane has failed."""
    engine = SimpleNamespace(client=None, cap=None, widen=print, max_workers=1)
    lane = Lane(0, b"", exact)
    port = DaskPort(engine, lane, b"", Job(print, exact=exact))
    assert port.room() > 0
    assert [] == port.wait(monotonic())
    lane.fail(Broken("for a reason"))
    assert [] == port.wait(None)
    assert "for a reason" in str(port.failure)
    assert port.room() == 0
