"""What worker processes are told first: made once for those that start together, and anew for new tasks."""

from collections import deque
from itertools import count

import pytest

from parallelkit._executors._process import _setup
from parallelkit._executors._process._lane import Batch, Lane
from parallelkit._executors._process._setup import FRESH, Setups
from parallelkit._executors._process._supervisor import Supervisor


@pytest.fixture
def setups(monkeypatch):
    numbers = count(1)
    monkeypatch.setattr(_setup, "setup_frame", lambda *_: b"%d" % next(numbers))
    return Setups(2, initializer=False)


def test_workers_that_start_together_are_told_the_same(setups):
    """What they are told is found out once, and once more for those that start later."""
    assert [b"1", b"1", b"2", b"2"] == [setups.frame(10 + after * FRESH) for after in (0, 0.9, 1.1, 1.9)]


def test_workers_that_start_for_new_tasks_are_told_how_the_program_is_now(setups):
    """The program may have changed just before it handed them over."""
    before = setups.frame(10)
    setups.outdate()
    assert before != setups.frame(10)


def test_a_change_while_a_worker_is_told_is_told_to_the_next(setups, monkeypatch):
    """New tasks that come while the program is looked at may follow a change that was not seen."""
    make = _setup.setup_frame
    monkeypatch.setattr(_setup, "setup_frame", lambda *given: setups.outdate() or make(*given))
    assert setups.frame(10) != setups.frame(10)


def test_new_tasks_outdate_what_workers_are_told_before_they_are_queued(setups):
    """Else a worker could start for them, and be told how the program was before."""
    told = []

    class Queue(deque):
        def append(self, batch):
            told.append(setups.frame(10))

    supervisor = Supervisor(1, None, None)
    supervisor.setups = setups
    lane = Lane(1, b"", False)
    lane.queue = Queue()
    told.append(setups.frame(10))
    supervisor.offer(Batch(lane, [(0, 1, 0, None)], None))
    supervisor.stop()
    assert [b"1", b"2"] == told
