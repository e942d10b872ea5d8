"""The contract of the executors: what the loop may expect of a port, wherever the work is done."""

import signal
import threading
from concurrent.futures.process import BrokenProcessPool

import pytest
import remote_tasks as far
from grounds import (
    GROUNDS,
    PATIENCE,
    Fake,
    Foreign,
    Inline,
    OwnProcessPool,
    Processes,
    ProcessPool,
    feed,
    rows_of,
    shared_pool,
    take,
)
from leaks import leaks, look

from parallelkit import TaskTimeout, WorkerDied
from parallelkit._executors._contract import Block, Ended

on_all = pytest.mark.parametrize("ground", GROUNDS, indirect=True)
on_parallel = pytest.mark.parametrize("ground", [each for each in GROUNDS if each.parallel], indirect=True)
on_enforcing = pytest.mark.parametrize("ground", [each for each in GROUNDS if each.enforces], indirect=True)
on_killing = pytest.mark.parametrize("ground", [each for each in GROUNDS if each.kills], indirect=True)
in_real_time = pytest.mark.parametrize(
    "ground", [each for each in GROUNDS if each not in (Fake, Inline)], indirect=True
)
# The tasks of the fake are steps of a script, which take no arguments.
on_functions = pytest.mark.parametrize(
    "ground", [each for each in GROUNDS if each is not Fake], indirect=True
)
on_pickling = pytest.mark.parametrize("ground", [Processes, ProcessPool], indirect=True)


@pytest.fixture(scope="module")
def _pool():
    with shared_pool():
        yield


@pytest.fixture
def ground(request, tmp_path, _pool):
    ground = request.param(tmp_path)
    yield ground
    ground.close()


@pytest.fixture
def port(ground):
    port = ground.open()
    yield port
    port.close()


def tickets(*calls, timeout=None):
    return [(index, 1, call, timeout) for index, call in enumerate(calls)]


# What ends comes back


@on_all
def test_every_attempt_is_reported_once(ground, port):
    """Every attempt is reported once, with its value or error, under its index, in any order."""
    calls = [ground.fail(OSError(index)) if index % 5 == 2 else ground.give(index) for index in range(40)]
    seen = feed(ground, port, calls)
    assert set(range(40)) == set(seen)
    for index, value in seen.items():
        if index % 5 == 2:
            assert isinstance(value, Ended)
            assert (OSError, (index,)) == (type(value.error), value.error.args)
        else:
            assert index == value
    assert [] == port.wait(ground.now()), "nothing comes again"


@on_all
def test_a_block_is_columns_of_equal_length(ground, port):
    """The columns of a block (indices, values, starts, ends, workers) have equal lengths, and no attempt ends before it starts."""
    began = ground.now()
    port.start(tickets(ground.give("value")))
    (block,) = wait_for_news(ground, port)
    assert isinstance(block, Block)
    ((index, value, started, ended, worker),) = zip(*block, strict=True)
    assert (0, "value") == (index, value)
    assert began <= started <= ended <= ground.now()
    assert isinstance(worker, str)


@on_all
def test_an_end_without_success_is_complete(ground, port):
    """A failure has its index, error, start, end and worker, and is not ``final``."""
    began = ground.now()
    port.start([(7, 1, ground.fail(ValueError("no")), None)])
    (ended,) = wait_for_news(ground, port)
    assert isinstance(ended, Ended)
    assert (7, "no", False) == (ended.index, str(ended.error), ended.final)
    assert began <= ended.started <= ended.ended <= ground.now()
    assert isinstance(ended.worker, str)


def wait_for_news(ground, port):
    until = ground.now() + PATIENCE
    while not (entries := port.wait(until)):  # a port may also return when something has begun
        assert ground.now() < until, "nothing ended"
    return entries


@on_all
@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit("odd")])
def test_an_attempt_that_raises_no_exception_ends_like_any_other(ground, port, error):
    """A BaseException is reported as it is: it ends neither the caller's program nor the worker's usefulness."""
    seen = feed(ground, port, [ground.fail(error), ground.give(1)])
    assert isinstance(seen[0], Ended)
    assert (type(error), error.args) == (type(seen[0].error), seen[0].error.args)
    assert 1 == seen[1]


@on_all
def test_none_is_a_value(ground, port):
    """None is a value, and so is an exception that is returned."""
    seen = feed(ground, port, [ground.give(None), ground.give(KeyError("returned"))])
    assert seen[0] is None
    assert isinstance(seen[1], KeyError)


@on_all
def test_an_index_may_come_again_with_the_next_attempt(ground, port):
    """After an attempt was reported, the same index may be started again."""
    for number in (1, 2, 3):
        port.start([(5, number, ground.give(number), None)])
        assert {5: number} == take(ground, port, 1)


# Room


@on_all
def test_there_is_room_to_begin_with(ground, port):
    """A new port has room for at least as many tickets as there are workers."""
    assert port.room() >= ground.engine.max_workers


@on_all
def test_an_exact_job_has_room_for_free_slots_only(ground):
    """With an ``exact`` job, a port has room only for free slots; each attempt that ends makes room for one."""
    port = ground.open(exact=True)
    width = ground.engine.max_workers
    assert width == port.room()
    port.start(tickets(*[ground.give(index) for index in range(width)]))
    assert 0 == port.room()
    take(ground, port, width)
    assert width == port.room()
    if ground.parallel:
        with ground.hold() as hold:
            port.start(tickets(hold.call, ground.give("ends")))
            assert {1: "ends"} == take(ground, port, 1)
            assert 1 == port.room()
        take(ground, port, 1)
    port.close()


@on_parallel
def test_an_exact_port_gets_its_turn_beside_one_that_has_all_slots(ground):
    """An ``exact`` port beside one that has all slots may always queue one ticket, and so gets its turn."""
    busy, exact = ground.open(), ground.open(exact=True)
    with ground.hold() as first, ground.hold() as second:
        busy.start(tickets(first.call, second.call))
        first.wait_until_begun()
        second.wait_until_begun()
        assert exact.room() > 0
        exact.start(tickets(ground.give("its turn")))
    assert {0: "its turn"} == take(ground, exact, 1)
    exact.close()
    busy.close()


@on_all
def test_nothing_may_be_started(ground, port):
    """Starting no tickets changes nothing."""
    room = port.room()
    port.start([])
    assert room == port.room()
    assert [] == port.wait(ground.now())


# Waiting


@on_all
def test_a_wait_ends_at_its_instant(ground, port):
    """If nothing ends, ``wait`` returns nothing, and not before its instant."""
    until = ground.now() + 0.02
    assert [] == port.wait(until)
    assert ground.now() >= until


@on_parallel
def test_a_wait_for_a_past_instant_only_looks(ground, port):
    """A wait until a past instant returns what has ended at once, even while something runs."""
    with ground.hold() as hold:
        port.start(tickets(hold.call))
        hold.wait_until_begun()
        assert [] == port.wait(ground.now() - 1)
        hold.let_go()
        assert {0} == set(take(ground, port, 1))


@on_parallel
def test_a_wake_ends_the_wait(ground, port):
    """``wake`` ends a wait, even if it came before the wait."""
    with ground.hold() as hold:
        port.start(tickets(hold.call))
        hold.wait_until_begun()
        port.wake()
        assert [] == port.wait(None)
        assert [] == port.wait(ground.now()), "and it ends one only"


@in_real_time
def test_a_wake_may_come_from_another_thread(ground, port):
    """``wake`` may come from another thread while the port's own waits."""
    with ground.hold() as hold:
        port.start(tickets(hold.call))
        hold.wait_until_begun()
        waker = threading.Thread(target=port.wake)
        waker.start()
        assert [] == port.wait(None)
        waker.join()


@in_real_time
def test_a_wake_may_come_from_a_signal_handler(ground, port):
    """``wake`` may come from a signal handler in the very thread that waits."""
    before = signal.signal(signal.SIGALRM, lambda *_: port.wake())
    try:
        with ground.hold() as hold:
            port.start(tickets(hold.call))
            hold.wait_until_begun()
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            assert [] == port.wait(None)
    finally:
        signal.signal(signal.SIGALRM, before)


# What runs


@on_parallel
def test_what_has_begun_and_not_ended_is_running(ground, port):
    """``running`` gives index, start and worker of attempts that have begun and not ended, not of queued ones."""
    before = ground.now()
    assert [] == port.running()
    with ground.hold() as first, ground.hold() as second:
        port.start(tickets(first.call, second.call))
        first.wait_until_begun()
        second.wait_until_begun()
        running = port.running()
        assert [0, 1] == sorted(index for index, _, _ in running)
        assert all(before <= started <= ground.now() for _, started, _ in running)
    ended = []
    while len(ended) < 2:
        ended += [row for block in wait_for_news(ground, port) for row in zip(*block, strict=True)]
    assert {(index, worker) for index, _, _, _, worker in ended} == {
        (at, worker) for at, _, worker in running
    }
    assert [] == port.running()


@on_parallel
def test_never_more_run_than_there_are_slots(ground, port):
    """With two slots, the third attempt waits for one to end."""
    holds = [ground.hold() for _ in range(3)]
    given = holds[: min(3, port.room())]
    try:
        port.start([(index, 1, hold.call, None) for index, hold in enumerate(given)])
        for hold in holds[:2]:
            hold.wait_until_begun()
        assert 2 == len(port.running())
    finally:
        for hold in holds:
            hold.let_go()
    take(ground, port, len(given))  # none begins as the test ends, when nobody is there any more to be told


# Timeouts


@on_enforcing
def test_an_overdue_attempt_is_reported_at_its_limit(ground, port):
    """An overdue attempt is reported as a TaskTimeout that names the limit, and not before it is over."""
    with ground.hold() as hold:
        port.start([(0, 2, hold.call, 0.1)])
        ended = take(ground, port, 1)[0]
        assert isinstance(ended.error, TaskTimeout)
        assert "timeout of 0.1" in str(ended.error)
        assert 0.1 <= ended.ended - ended.started + 1e-9 < PATIENCE


@on_enforcing
def test_after_its_timeout_an_attempt_is_not_reported_again(ground, port):
    """What an attempt produces after its timeout was reported is dropped, and others run meanwhile."""
    with ground.hold() as hold:
        port.start([(0, 1, hold.call, 0.1)])
        take(ground, port, 1)
        port.start([(1, 1, ground.give("next"), None)])
        assert {1: "next"} == take(ground, port, 1)
        hold.let_go()
        port.start([(2, 1, ground.give("last"), None)])
        assert {2: "last"} == take(ground, port, 1)


@on_enforcing
def test_timeouts_may_differ(ground, port):
    """Each ticket has its own timeout, or none."""
    with ground.hold() as short, ground.hold() as long:
        port.start([(0, 1, long.call, None), (1, 1, short.call, 0.1)])
        long.wait_until_begun()
        assert isinstance(take(ground, port, 1)[1].error, TaskTimeout)
        assert [0] == [index for index, _, _ in port.running()]


# Deaths


@on_killing
def test_a_death_costs_one_attempt(ground, port):
    """A worker's death costs one attempt; the others run, including those behind it, and the port goes on."""
    calls = [ground.die(3) if index == 4 else ground.give(index) for index in range(12)]
    seen = feed(ground, port, calls)
    died = seen.pop(4)
    assert {index: index for index in range(12) if index != 4} == seen
    assert isinstance(died.error, WorkerDied)
    assert (3, None) == (died.error.exitcode, died.error.signal)
    assert port.failure is None


@pytest.mark.parametrize("ground", [OwnProcessPool], indirect=True)
def test_a_broken_pool_may_have_run_what_was_in_flight(ground, port):
    """When a standard pool breaks, each attempt in flight is reported with ``may_have_run``, and nothing more runs."""
    pass_by(ground)  # else a worker might die that the pool does not know of yet
    with ground.hold() as hold:
        port.start([(0, 1, hold.call, None), (1, 1, ground.die(3), None)])
        seen = take(ground, port, 2)
    assert [WorkerDied, WorkerDied] == [type(seen[index].error) for index in (0, 1)]
    assert all(ended.error.may_have_run for ended in seen.values())
    assert all(isinstance(ended.error.__cause__, BrokenProcessPool) for ended in seen.values())
    port.start([(2, 1, ground.give(2), None), (3, 1, ground.give(3), None)])
    assert [] == port.wait(None), "what the pool did not take has not failed: the run will cancel it"
    assert isinstance(port.failure, BrokenProcessPool)


class Unpicklable:
    """Raises when it is pickled."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        raise self.error


@on_pickling
@pytest.mark.parametrize(
    "error", [TypeError("no"), RuntimeError("no"), RecursionError("too deep"), KeyError(1)]
)
def test_an_argument_that_cannot_be_pickled_costs_one_attempt(ground, port, error):
    """An argument that cannot be pickled costs its own attempt, which never began and is not retried."""
    port.start(tickets(ground.give(Unpicklable(error)), ground.give(1)))
    seen = take(ground, port, 2)
    assert 1 == seen[1]
    assert (None, True) == (seen[0].started, seen[0].final)
    assert port.failure is None


# Closing


@on_all
def test_what_was_committed_before_the_close_is_still_reported(ground):
    """What was committed before the close is reported, once."""
    port = ground.open()
    port.start(tickets(ground.give("committed")))
    if ground.parallel:
        with ground.hold() as first, ground.hold() as second:  # in the port's own slots, so it has ended
            port.start([(1, 1, first.call, None), (2, 1, second.call, None)])
            first.wait_until_begun()
            second.wait_until_begun()
        pass_by(ground)
        port.close()
        assert 0 in rows_of(port.wait(ground.now()))
    port.close()
    assert [] == port.wait(ground.now())


def pass_by(ground):
    """Wait until everything started before has ended: both workers must have run something else since."""
    port = ground.open()
    with ground.hold() as first, ground.hold() as second:
        port.start(tickets(first.call, second.call))
        first.wait_until_begun()
        second.wait_until_begun()
    take(ground, port, 2)
    port.close()


@on_parallel
def test_a_close_waits_for_no_task(ground):
    """A close kills or abandons running tasks and withdraws queued ones; none of them is ever reported."""
    port = ground.open()
    with ground.hold() as first, ground.hold() as second:
        more = min(3, port.room() - 2)
        port.start(tickets(first.call, second.call, *[ground.give(0)] * more))
        first.wait_until_begun()
        second.wait_until_begun()
        port.close()
        assert [] == port.running()
        assert [] == port.wait(ground.now())
        first.let_go()
        second.let_go()
        assert [] == port.wait(ground.now() + 0.02)


@on_all
def test_a_port_may_be_closed_twice(ground):
    """A port may be closed twice, and without having been used; the next one works."""
    port = ground.open()
    port.close()
    port.close()
    assert ([], []) == (port.running(), port.wait(ground.now()))
    after = ground.open()
    port.close()
    assert {0: 7} == feed(ground, after, [ground.give(7)])
    after.close()


@on_all
def test_an_engine_serves_one_port_after_another(ground):
    """A port is not affected by what an earlier one on the same engine has left."""
    for number in range(3):
        port = ground.open()
        assert {0: number} == feed(ground, port, [ground.give(number)])
        port.close()


@pytest.mark.usefixtures("_pool")
@pytest.mark.parametrize("kind", GROUNDS)
def test_an_engine_may_be_closed_unused(kind, tmp_path):
    """An engine that was never used can be closed, and twice; nothing of it is left."""
    before = look()
    ground = kind(tmp_path)
    ground.engine.close()
    left = leaks(before, look(), abandoned=0)
    ground.engine.close()
    ground.close()
    assert [] == left


@on_parallel
def test_closing_one_port_leaves_the_other_alone(ground):
    """Closing a port affects no worker that runs another port's task."""
    mine, other = ground.open(), ground.open()
    with ground.hold() as hold, ground.hold() as stays:
        mine.start(tickets(hold.call))
        hold.wait_until_begun()
        other.start([(0, 1, stays.call, None)])
        stays.wait_until_begun()
        mine.close()
        assert [0] == [index for index, _, _ in other.running()]
        stays.let_go()
        assert {0} == set(take(ground, other, 1))
    other.close()


# Two ports at once


@in_real_time
def test_two_ports_are_served_in_turns(ground):
    """A port with many tasks does not keep another waiting until it is done."""
    many, few = ground.open(), ground.open()
    holds = [ground.hold() for _ in range(min(12, many.room()))]
    try:
        many.start(tickets(*[hold.call for hold in holds]))
        for hold in holds[:2]:
            hold.wait_until_begun()
        few.start(tickets(ground.give("few")))
        for hold in holds[: max(1, len(holds) - 2)]:
            hold.let_go()
        assert {0: "few"} == take(ground, few, 1)
    finally:
        for hold in holds:
            hold.let_go()
    take(ground, many, len(holds))
    many.close()
    few.close()


@on_all
def test_each_port_is_told_of_its_own(ground):
    """Each port gets only its own ends."""
    many, few = ground.open(), ground.open()
    calls = [ground.give(index) for index in range(400)]
    given = min(400, many.room())
    many.start(tickets(*calls[:given]))
    assert {0: "few"} == feed(ground, few, [ground.give("few")])
    seen = take(ground, many, given)
    assert {index: index for index in range(given)} == seen
    assert [] == few.wait(ground.now()), "what belongs to one port is never reported by another"
    many.close()
    few.close()


@in_real_time
def test_ports_may_be_used_by_different_threads(ground):
    """Two threads may each use a port of one engine."""
    seen = {}

    def run(name):
        port = ground.open()
        seen[name] = feed(ground, port, [ground.give((name, index)) for index in range(50)])
        port.close()

    threads = [threading.Thread(target=run, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: {index: (name, index) for index in range(50)} for name in "ab"} == seen


# The job


@on_functions
def test_the_jobs_arguments_follow_the_items_own(ground):
    """A job's positional arguments come after those of a call; its keywords yield to the call's own."""
    port = ground.open(args=("b",), kwargs={"end": "!"})
    port.start([(0, 1, (far.joined, ("a",), {"end": "?"}), None)])
    port.start([(1, 1, (far.joined, ("a",), {}), None)])
    assert {0: "ab?", 1: "ab!"} == take(ground, port, 2)
    port.close()


@on_all
def test_a_foreign_pool_is_not_shut_down(ground):
    """Closing the engine does not shut down a caller's pool."""
    ground.engine.close()
    if isinstance(ground, Foreign):
        assert 3 == ground.engine.executor.submit(pow, 3, 1).result()
