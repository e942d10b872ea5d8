"""The supervisor's short turns, in which it looks only at workers that sent something, and what these must not miss."""

import os
import signal
import time
from functools import partial
from math import inf
from operator import is_
from threading import Timer
from types import SimpleNamespace

import pytest
import remote_tasks as far
from patience import wait_until
from port_driver import Seen, drive, drive_port, drive_rest, fifo, opened, wait

from parallelkit._errors import TaskTimeout
from parallelkit._executors._process import _supervisor
from parallelkit._executors._process._handle import STANDSTILL, Worker
from parallelkit._executors._process._holding import LOOK
from parallelkit._executors._process._lane import Batch, Lane
from parallelkit._executors._process._supervisor import Supervisor
from parallelkit._executors._process._wire import Wire
from parallelkit._executors._process._worker_pool import PAUSE, STUCK, WorkerPool
from parallelkit._executors._processes import ProcessEngine
from parallelkit._worker._channel import EACH, NEVER

LONG = 0.006  # seconds; whoever takes so long sends a wake-up at each commit
SHORT = 0.002  # so does who takes this; but two are handed over at once


@pytest.fixture
def engine():
    engine = ProcessEngine(2)
    yield engine
    engine.close()


def test_most_turns_of_long_tasks_are_short(engine, monkeypatch):
    """While enough is queued, a turn looks only at workers that sent something."""
    decided = []
    decide = Supervisor._decide
    monkeypatch.setattr(Supervisor, "_decide", lambda own, *args: decided.append(args) or decide(own, *args))
    drive(engine, far.nap, [LONG] * 8)
    for _ in range(5):  # a busy machine may leave the workers without work, so that more has to be decided
        decided.clear()
        with opened(engine, far.nap, patient=True) as port:
            port.start([(index, 1, LONG, None) for index in range(80)])
            drive_rest(port, 80)
        if len(decided) < 40:
            break

    assert len(decided) < 40


def test_a_task_that_closes_its_workers_socket_makes_no_turns(engine, monkeypatch):
    """A socket that a task has closed is reported once, and the supervisor sleeps until the worker ends; it once used a whole CPU."""
    turns = []
    turn = Supervisor._turn
    monkeypatch.setattr(Supervisor, "_turn", lambda own: turns.append(own) or turn(own))

    assert {0: 0.2} == drive(engine, far.close_and_nap, [0.2]).values
    assert len(turns) < 60


class FakeWorker(SimpleNamespace):
    """A worker that sends a wake-up at each commit, and runs its last attempt."""

    def __init__(self, lane):
        super().__init__(
            lane=lane,
            pending=1,
            ready=True,
            held=None,
            retiring=False,
            killed=False,
            doomed=False,
            outdated=False,
        )
        self.sent, self.done = 7, 6
        self.wire = SimpleNamespace(wakes_at=EACH, head=6)
        self.is_loading = lambda: False
        self.given, self.work = 0, 0.0

    def give(self, batch, now):
        self.given += len(batch.tickets)

    def takes_more(self):
        return False

    def stock(self):
        return self.work


def calm_pool(queued=9, mean=LONG):
    lane = Lane(1, b"", False)
    lane.pace.measure(1, mean)
    lane.pace.limit = 1
    lane.queue.append(Batch(lane, [(index, 1, index, None) for index in range(queued)], None))
    pool = WorkerPool(1, None, lambda now: None, lambda wanted: 0)
    pool.lanes.append(lane)
    pool.workers.append(FakeWorker(lane))
    pool.calm = True
    return pool


def test_who_rang_is_given_more():
    """A worker that sent something gets one more attempt of this length, behind the one that it runs."""
    pool = calm_pool()
    (worker,) = pool.workers
    assert pool.refill(worker, 0.0)
    assert (1, 8) == (worker.given, pool.lanes[0].waiting())


@pytest.mark.parametrize(
    "change",
    [
        lambda pool, worker, lane: setattr(pool, "calm", False),
        lambda pool, worker, lane: pool.lanes.append(Lane(2, b"", False)),
        lambda pool, worker, lane: pool.lanes.clear(),
        lambda pool, worker, lane: lane.queue.clear(),
        lambda pool, worker, lane: setattr(lane, "halted", True),
        lambda pool, worker, lane: setattr(lane, "broken", "for a reason"),
        lambda pool, worker, lane: setattr(lane.pace, "_time", 0.0),
        lambda pool, worker, lane: setattr(worker.wire, "head", 7),
        lambda pool, worker, lane: setattr(worker.wire, "wakes_at", NEVER),
        lambda pool, worker, lane: setattr(worker.wire, "wakes_at", 8),
        lambda pool, worker, lane: setattr(worker, "ready", False),
        lambda pool, worker, lane: setattr(worker, "held", 3),
        lambda pool, worker, lane: setattr(worker, "retiring", True),
        lambda pool, worker, lane: setattr(worker, "killed", True),
    ],
)
def test_where_more_is_to_decide_all_are_looked_at(change):
    """If more has to be decided, nothing is given in a short turn, and a full turn follows."""
    pool = calm_pool()
    (worker,) = pool.workers
    change(pool, worker, pool.lanes[0])
    assert not pool.refill(worker, 0.0)
    assert worker.given == 0


@pytest.mark.parametrize(
    ("patient", "mean", "work", "short"),
    [
        (True, SHORT, 2 * LOOK, False),
        (False, SHORT, 2 * LOOK, True),
        (True, LONG, 2 * LOOK, True),
        (True, SHORT, LOOK, True),
    ],
)
def test_who_has_plenty_of_short_tasks_need_not_ring(patient, mean, work, short):
    """A worker with plenty of short tasks causes a full turn, which has it ring no more; not if somebody may see each result."""
    pool = calm_pool(mean=mean)
    (worker,) = pool.workers
    worker.work, pool.lanes[0].patient = work, patient
    assert pool.refill(worker, 0.0) is short


def test_who_takes_the_last_has_all_looked_at():
    """A worker that takes the last queued attempt causes a full turn, so that it is known who is hungry when new work comes."""
    pool = calm_pool(queued=1)
    assert not pool.refill(pool.workers[0], 0.0)
    assert pool.workers[0].given == 1


def test_none_queues_ahead_while_another_run_waits():
    """A worker gets no second attempt of its run while another run waits for a free worker."""
    pool = calm_pool()
    (lane,), (worker,) = pool.lanes, pool.workers
    other = Lane(2, b"", False)
    other.queue.append(lane.queue[0]._replace(lane=other))
    pool.lanes.append(other)
    pool.assign(0.0)
    assert worker.given == 0
    other.queue.clear()
    pool.assign(0.0)
    assert worker.given == 1


@pytest.mark.parametrize(
    ("change", "calm"),
    [
        (lambda pool, worker: None, True),
        (lambda pool, worker: setattr(worker, "ready", False), False),
        (lambda pool, worker: setattr(worker, "held", 3), False),
        (lambda pool, worker: setattr(pool, "act_at", 7.0), False),
        (lambda pool, worker: setattr(pool, "wants_spare", True), False),
        (lambda pool, worker: setattr(pool, "max_workers", 2), False),
        (lambda pool, worker: setattr(pool, "_max_tasks", 10), False),
    ],
)
def test_when_a_pool_is_calm(change, calm):
    """A pool is calm if no worker is starting, ending, held or missing."""
    pool = calm_pool()
    (worker,) = pool.workers
    worker.stock = lambda: 0.0
    worker.wake_at = lambda in_vain: EACH
    worker.wire.set_wake_at = lambda number: False
    change(pool, worker)
    assert pool.listen(0.0, moved=True) == inf
    assert pool.calm is calm


def test_a_commit_whose_wake_up_was_received_with_the_one_before_is_looked_at_at_once():
    """A commit whose wake-up was received with that of the previous one is looked at at once: no other will come for it."""
    pool = calm_pool()
    (worker,) = pool.workers
    worker.stock = lambda: 0.0
    worker.wake_at = lambda in_vain: EACH
    worker.wire.set_wake_at = lambda number: False
    worker.wire.head = worker.done + 1
    assert pool.listen(7.0, moved=True) == 7.0
    # Of these nothing is taken any more: to look all the time would take a cpu until they end.
    worker.doomed = True
    assert pool.listen(7.0, moved=True) == inf
    worker.doomed, worker.killed = False, True
    assert pool.listen(7.0, moved=True) == inf


@pytest.fixture
def single():
    """An engine with one worker."""
    engine = ProcessEngine(1)
    yield engine
    engine.close()


@pytest.mark.all
def test_a_wake_up_that_is_received_before_its_commit_is_seen_is_not_lost(single, monkeypatch):
    """A commit and its wake-up that come between the supervisor's look and its wait are not lost."""
    drive(single, far.nap, [SHORT] * 40)
    check = Wire.check

    def wait_and_check(wire):
        head, until = wire.head, time.monotonic() + 3 * SHORT
        while wire.head == head and time.monotonic() < until:
            time.sleep(SHORT / 10)
        time.sleep(SHORT / 5)  # now it has sent its wake-up
        check(wire)

    monkeypatch.setattr(Wire, "check", wait_and_check)
    began = time.monotonic()
    for count in range(3, 10):
        drive(single, far.nap, [SHORT] * count)
    assert time.monotonic() - began < STANDSTILL / 2


@pytest.mark.parametrize("pause", [None, 0.05])
def test_an_exact_run_hears_that_another_has_left_it_a_worker(engine, tmp_path, pause):
    """An ``exact`` run learns that another run has freed a worker; otherwise it would go on with one until its own attempt ends."""
    paths = {name: (fifo(tmp_path / f"{name}1"), fifo(tmp_path / f"{name}2")) for name in "abc"}
    fn = partial(far.on, {name: (far.tell_and_hear, pair) for name, pair in paths.items()})
    with opened(engine, fn) as other, opened(engine, fn, exact=True) as port:
        other.start([(0, 1, "a", None), (1, 1, "b", None)])
        far.hear(paths["a"][0]), far.hear(paths["b"][0])
        assert 1 == port.room()
        port.start([(0, 1, "c", None)])
        far.tell(paths["a"][1], "go on")
        far.hear(paths["c"][0])
        assert 0 == port.room()

        go_on = Timer(pause or 0.0, far.tell, (paths["b"][1], "go on"))
        go_on.start()
        if pause is None:  # it is left before anybody waits to hear of it
            while engine._supervisor.pool.others(port._lane):
                time.sleep(0.01)
            time.sleep(0.05)
        until = time.monotonic() + 30
        assert [] == port.wait(until)
        assert time.monotonic() < until
        assert 1 == port.room()
        go_on.join()
        far.tell(paths["c"][1], "go on")
        assert ["go on"] == [value for block in wait(port) for value in block.values]


def test_who_has_not_begun_what_it_holds_is_looked_at_again():
    """A worker that has not begun its attempt, and so cannot ring, is looked at again: what waits behind it is for idle workers."""
    pool = calm_pool(queued=1)
    pool.lanes[0].queue.clear()
    (worker,) = pool.workers
    pool.max_workers, worker.pending = 2, 2
    worker.stuck_since = lambda: inf
    pool.assign(7.0)
    assert 7.0 + STUCK == pool.act_at

    worker.stuck_since = lambda: 7.0 - STUCK
    held = []
    worker.hold = held.append
    pool.assign(7.0)
    assert [7.0] == held


def test_nothing_is_taken_back_while_something_is_queued():
    """An idle worker is given what is queued; to hold others as well would slow them down for nothing."""
    pool = calm_pool()
    (worker,) = pool.workers
    pool.max_workers, worker.pending = 2, 2
    worker.stuck_since = lambda: 0.0
    worker.hold = pytest.fail
    pool.assign(7.0)


def test_a_spare_is_given_work_in_the_turn_in_which_it_replaces_another():
    """Nothing may happen after this turn that would make another one."""
    pool = calm_pool()
    (pool.spare,) = pool.workers
    pool.workers.clear()
    pool.spare.pending = 0
    pool.assign(0.0)
    assert (None, 1) == (pool.spare, pool.workers[0].given)


def test_a_worker_is_retired_when_it_has_done_what_it_holds():
    """Retired before, it would take a place beside its replacement, and might never see that it is to end."""
    pool = calm_pool()
    (worker,) = pool.workers
    worker.outdated, worker.retire = True, lambda: setattr(worker, "retiring", True)
    pool.assign(0.0)
    assert (False, 0) == (worker.retiring, worker.given)
    worker.pending = 0
    pool.assign(0.0)
    assert (True, 0) == (worker.retiring, worker.given)


def test_a_spare_is_started_for_a_run_and_not_again_at_once_if_it_failed():
    """Without a run it would have no function to load; and where the system has no process to give, to ask in each turn costs much."""
    pool = calm_pool()
    tries = []
    pool._spawn, pool._startable = tries.append, lambda wanted: wanted
    pool.wants_spare, lane = True, pool.lanes.pop()
    for at, lanes in [(0, []), (1, [lane]), (1 + PAUSE / 2, [lane]), (1 + PAUSE, [lane])]:
        pool.lanes = lanes
        pool.keep_spare(at)
    assert [1, 1 + PAUSE] == tries


def test_a_system_that_refuses_a_worker_is_asked_for_no_other_in_the_same_turn():
    """Of an engine of many workers, each would be refused in turn, ten times a second."""
    pool, tries = calm_pool(), []
    pool._spawn, pool._startable, pool.max_workers = tries.append, lambda wanted: wanted, 8
    for at in (0.0, PAUSE / 2, PAUSE):
        pool.assign(at)
    assert [0.0, PAUSE] == tries


@pytest.mark.parametrize(("name", "value"), [("broken", "for a reason"), ("halted", True)])
def test_a_spare_loads_nothing_for_a_run_of_which_nothing_more_begins(name, value):
    """A function that ends whoever loads it would end one spare after another, until the run is closed."""
    pool, born = calm_pool(), []
    taught = SimpleNamespace(
        teach=lambda lane, now: born.append(lane.number), wire=SimpleNamespace(flush=bool)
    )
    pool._spawn, pool._startable, pool.wants_spare = lambda now: taught, lambda wanted: wanted, True
    (lane,) = pool.lanes
    setattr(lane, name, value)
    assert pool.keep_spare(0.0) is None

    pool.lanes.append(Lane(2, b"", False))
    assert pool.keep_spare(0.0) is taught
    assert [2] == born


def test_a_block_that_is_given_up_makes_all_be_looked_at():
    """Workers unmap it in a full turn; until then its memory would be taken."""
    supervisor = SimpleNamespace(blocks=SimpleNamespace(dropped=[7]))
    assert not Supervisor._refill(supervisor, [], 0.0)


@pytest.mark.all
def test_what_waits_behind_one_that_the_system_let_begin_late_is_taken_back(engine, monkeypatch):
    """If a worker that holds two attempts gets no CPU, the second is taken back for another worker."""
    fn = partial(far.on, {"long": (far.nap, 0.5)})
    drive(engine, fn, [0] * 500)  # now several are handed over at once
    give = Worker.give

    def give_one_that_is_late(worker, batch, now):
        if len(batch.tickets) > 1:
            os.kill(worker.pid, signal.SIGSTOP)
            Timer(0.03, os.kill, (worker.pid, signal.SIGCONT)).start()
            late.append(batch)
        give(worker, batch, now)

    late = []
    monkeypatch.setattr(Worker, "give", give_one_that_is_late)
    seen = drive(engine, fn, ["long"] * 2)
    assert late
    assert 2 == len(set(seen.workers.values()))


@pytest.mark.all
def test_a_poke_in_the_midst_of_a_short_turn_is_not_lost(engine, monkeypatch):
    """After a poke during a short turn, the next turn looks at everything, without blocking before."""
    course = []
    turn, refill, decide = Supervisor._turn, Supervisor._refill, Supervisor._decide

    def poke_behind(own, active, now):
        short = refill(own, active, now)
        if short and active and "poke" not in course:
            own._poked = True  # what another thread does as long as this one is awake
            course.append("poke")
        return short

    monkeypatch.setattr(Supervisor, "_refill", poke_behind)
    monkeypatch.setattr(Supervisor, "_turn", lambda own: course.append("turn") or turn(own))
    monkeypatch.setattr(Supervisor, "_decide", lambda own, *args: course.append("all") or decide(own, *args))
    for _ in range(20):  # on a busy machine, none of so many turns may be short
        with opened(engine, far.nap, patient=True) as port:
            port.start([(index, 1, LONG, None) for index in range(80)])
            drive_rest(port, 80)
        if "poke" in course:
            break
    after = course.index("poke") + 1

    assert ["turn", "all"] == course[after : after + 2]


@pytest.mark.all
def test_a_task_that_hangs_in_a_calm_pool_is_killed_in_time(engine):
    """A hung task is killed in time, although only the other worker sends wake-ups."""
    items = [LONG] * 20 + [60.0] + [LONG] * 200
    with opened(engine, far.nap, patient=True) as port:
        port.start([(index, 1, item, 0.3 if index == 20 else 30.0) for index, item in enumerate(items)])
        seen = Seen()
        while len(seen) < len(items):
            seen.add(wait(port))
    failure = seen.failures[20]
    assert isinstance(failure.error, TaskTimeout)
    assert len(seen.values) == 220
    assert sum(start > failure.ended for start, _ in seen.times.values()) > 20


def test_a_second_run_has_its_turn_while_the_first_is_calm(engine):
    """A second run gets workers before the queue of the first is empty."""
    with opened(engine, far.nap, patient=True) as first:
        first.start([(index, 1, LONG, None) for index in range(2000)])
        time.sleep(0.1)
        with opened(engine, far.give_back) as second:
            second.start([(0, 1, "here", None)])
            seen = Seen()
            seen.add(wait(second))
            assert {0: "here"} == seen.values
        assert len(first._lane.queue) > 0


def run_then_end(engine, monkeypatch, linger, fn=far.give_back, args=()):
    """Run one attempt, and end its run; the run's lane, and how often that poked the supervisor."""
    monkeypatch.setattr(_supervisor, "LINGER", linger)
    drive(engine, far.give_back, ["first"])  # so that no worker has yet to start
    pokes = []
    supervisor = engine._supervisor
    with opened(engine, fn, args=args) as port:
        drive_port(port, ["here"])
        # A turn that is under way, or due already, would withdraw the lane, too.
        wait_until(lambda: supervisor._asleep and (linger or supervisor._due == inf))
        monkeypatch.setattr(supervisor, "poke", lambda: pokes.append(None))
    monkeypatch.undo()
    return port._lane, len(pokes)


def test_the_end_of_a_run_wakes_nobody(engine, monkeypatch):
    """A turn is due soon after the last attempt has ended, and it withdraws the run; so does any turn until then."""
    lane, pokes = run_then_end(engine, monkeypatch, linger=5)
    pool = engine._supervisor.pool
    assert not pokes
    assert [lane] == pool.lanes
    assert engine._supervisor._calm_until <= engine._supervisor._due < inf

    drive(engine, far.give_back, ["next"])
    assert lane not in pool.lanes
    assert all(lane.number not in worker.taught.lanes for worker in pool.workers)


def test_a_run_that_has_ended_is_withdrawn_when_a_turn_is_due(engine, monkeypatch):
    """No memory of a run that has ended waits for the next run."""
    run_then_end(engine, monkeypatch, linger=0.1)
    wait_until(lambda: not engine._supervisor.pool.lanes)


@pytest.mark.parametrize(("linger", "args"), [(0.0, (None,)), (5, (bytes(1 << 20),))])
def test_the_end_of_a_run_wakes_the_supervisor(linger, args, engine, monkeypatch):
    """If no turn is due any more, or much memory waits for it, the run is withdrawn at once."""
    _, pokes = run_then_end(engine, monkeypatch, linger, is_, args)
    assert 1 == pokes


def test_what_is_asked_after_the_answers_of_the_due_turn_wakes_the_supervisor(engine, monkeypatch):
    """That turn answers no more, and no other may be due: it would wait until something else happens."""
    drive(engine, far.give_back, ["first"])
    supervisor, pokes = engine._supervisor, []
    wait_until(lambda: supervisor._asleep and supervisor._due == inf)
    answer = supervisor._answer
    with monkeypatch.context() as patched:
        patched.setattr(supervisor, "poke", lambda: pokes.append(None))
        patched.setattr(supervisor, "_answer", lambda: answer() or supervisor.post(list, at_once=False))
        supervisor._due = 0.0
        supervisor._answer_at(1.0)
    assert 1 == len(pokes)


def test_no_turn_is_due_as_long_as_anything_runs(engine, monkeypatch):
    """The end of an attempt is that of its run only if no other is held by a worker."""
    dues, expect = [], Supervisor._expect_end

    def note(own, moved, now):
        own._due = inf
        expect(own, moved, now)
        if moved and any(worker.pending for worker in own.pool.workers):
            dues.append(own._due)

    monkeypatch.setattr(Supervisor, "_expect_end", note)
    drive(engine, far.nap, [SHORT] * 8)
    assert {inf} == set(dues)
