"""When a run in processes is woken for attempts that have ended."""

import logging
from array import array
from math import inf

import pytest

from parallelkit import Task, iter_parallel, map_reduce, run_parallel
from parallelkit._executors import _processes
from parallelkit._executors._process import _lane
from parallelkit._executors._process._lane import (
    HEAVY,
    LIGHT,
    UNSEEN,
    WEIGHTY,
    Batch,
    Died,
    Lane,
    RawColumns,
    Record,
    Span,
    Why,
    most_unseen,
)
from parallelkit._executors._process._pace import AHEAD
from parallelkit._worker._channel import BIG_FAILED, FAILED, INT, NONE, VALUE

WORKERS = 2
NOW = 100.0


def lane_with(queued, patient=True, folds=False):
    """A lane with this many queued attempts, which take a tenth of a second each."""
    lane = Lane(1, b"", False, patient)
    lane.folds = folds
    lane.pace.measure(1, 0.1)
    lane.queue.append(Batch(lane, [(index, 1, index, None) for index in range(queued)], None))
    return lane


def span(lane, *kinds, files=(), size=0):
    instants = array("d", range(len(kinds)))
    heap = bytes(size or kinds.count(VALUE))
    columns = RawColumns(instants, instants, bytes(kinds), b"", heap, 0, list(files), b"")
    return Span(lane.queue[0].part(0, len(kinds)), columns, "process 1")


def is_woken(lane):
    """Whether a waiter at the gate would be let through."""
    return not lane.gate._tokens


def wait_at(lane):
    lane.gate._tokens.append(None)


def test_a_run_that_nobody_looks_at_is_woken_once_for_many():
    """While enough is queued, successes are collected, and the run is woken once for many."""
    lane = lane_with(WORKERS)
    wait_at(lane)
    lane.post(span(lane, NONE))
    due = lane.tell(NOW, WORKERS)
    lane.post(span(lane, INT, VALUE))

    assert due == NOW + UNSEEN
    assert lane.tell(NOW + UNSEEN / 2, WORKERS) == due
    assert not is_woken(lane)
    assert lane.tell(due, WORKERS) == float("inf")
    assert is_woken(lane)


def test_the_next_wait_begins_with_the_next_event():
    """After the run was woken, or has looked by itself, the time begins anew with the next event."""
    lane = lane_with(WORKERS)
    for start in (NOW, NOW + 7.0):
        lane.post(span(lane, NONE))
        assert lane.tell(start, WORKERS) == start + UNSEEN
        lane.events.clear()
        assert lane.tell(start + 1.0, WORKERS) == float("inf")


@pytest.mark.parametrize(
    ("size", "most"), [(0, 8), (WEIGHTY - 1, 8), (WEIGHTY, 4), (3 * WEIGHTY, 2), (9 * WEIGHTY, 0)]
)
def test_the_larger_values_are_the_fewer_wait(size, most):
    """The larger the values, the fewer are collected: unpickling many at a time would delay the supervisor."""
    lane = lane_with(100)
    wait_at(lane)
    for _ in range(most):
        lane.post(span(lane, VALUE, size=size))
        assert lane.tell(NOW, WORKERS) == NOW + UNSEEN
    lane.post(span(lane, VALUE, size=size))
    assert lane.tell(NOW, WORKERS) == float("inf")
    assert is_woken(lane)


@pytest.mark.parametrize("queued", range(WORKERS))
def test_a_run_is_woken_before_its_workers_starve(queued):
    """If less than a batch per worker is queued, the run is woken."""
    lane = lane_with(queued + 1)
    event = span(lane, NONE)
    lane.take(1)
    wait_at(lane)
    lane.post(event)
    lane.tell(NOW, WORKERS)

    assert is_woken(lane)


@pytest.mark.parametrize("kinds", [(FAILED,), (NONE, BIG_FAILED), (VALUE, FAILED, VALUE)])
def test_a_failure_does_not_wait(kinds):
    """A failure wakes the run at once: it may be retried, or stop the run."""
    lane = lane_with(9)
    wait_at(lane)
    lane.post(span(lane, *kinds))
    lane.post(span(lane, NONE))
    lane.tell(NOW, WORKERS)

    assert is_woken(lane)


@pytest.mark.parametrize("kind", ["died", "record", "file"])
def test_a_death_a_log_record_and_a_large_value_do_not_wait(kind):
    """A death, a log record and a large value, whose memory the worker needs, wake the run at once."""
    lane = lane_with(9)
    died = Died(lane.queue[0].part(0, 1), 1.0, 2.0, 1, -9, Why.ITSELF, "process 1", "")
    event = {"died": died, "record": Record(b"", None), "file": span(lane, VALUE, files=[b"content"])}[kind]
    wait_at(lane)
    lane.post(event)
    lane.tell(NOW, WORKERS)

    assert is_woken(lane)


def test_whoever_takes_outcomes_one_by_one_is_woken_for_each():
    """A run that takes outcomes one by one is woken for each, however much is queued."""
    lane = lane_with(9, patient=False)
    wait_at(lane)
    lane.post(span(lane, NONE))
    lane.tell(NOW, WORKERS)

    assert is_woken(lane)


@pytest.mark.parametrize("workers", [1, 6])
def test_no_more_than_a_few_wait(workers):
    """Only a limited number is collected, because unpickling very many at once would delay the supervisor and its workers."""
    lane = lane_with(99)
    wait_at(lane)
    for count in range(most_unseen(workers) + 1):
        assert not is_woken(lane), f"after {count}"
        lane.post(span(lane, VALUE))
        lane.tell(NOW, workers)

    assert is_woken(lane)
    assert most_unseen(workers) >= workers


def test_of_values_that_are_not_pickled_many_wait():
    """Of None and numbers, which are not unpickled, very many are collected before the run is woken."""
    lane = lane_with(1000)
    wait_at(lane)
    for _ in range(most_unseen(WORKERS)):
        lane.post(span(lane, *[INT] * LIGHT))
        assert lane.tell(NOW, WORKERS) == NOW + UNSEEN
    lane.post(span(lane, NONE))
    lane.tell(NOW, WORKERS)

    assert is_woken(lane)


def test_of_values_that_are_folded_few_wait():
    """Each costs a call of the caller's function, be it a number."""
    lane = lane_with(1000, folds=True)
    lane.post(span(lane, *[INT] * most_unseen(WORKERS)))
    assert lane.tell(NOW, WORKERS) == NOW + UNSEEN
    lane.post(span(lane, NONE))
    assert lane.tell(NOW, WORKERS) == inf


def test_what_was_seen_is_not_counted():
    """Once the run was woken, or has looked by itself, the count begins anew."""
    lane = lane_with(99)
    for seen in (True, False):
        lane.post(span(lane, *[VALUE] * most_unseen(WORKERS)))
        assert lane.tell(NOW, WORKERS) == NOW + UNSEEN
        if seen:
            lane.events.clear()
        assert lane.tell(NOW + UNSEEN, WORKERS) == float("inf")


def test_a_batch_is_of_many_attempts_only_while_their_items_are_small():
    """No frame of many megabytes holds up a worker's other frames; one item may be of any size."""
    lane = Lane(1, b"", False)
    sizes = [HEAVY // 2, HEAVY // 2, 1, HEAVY, 2 * HEAVY, 1, 1]
    tickets = [(index, 1, None, None) for index in range(len(sizes))]
    lane.queue.append(Batch(lane, tickets, list(map(bytes, sizes))))
    taken = []
    while lane.queue:
        taken.append([index for index, _, _, _ in lane.take(5).tickets])
    assert [[0, 1], [2], [3], [4], [5, 6]] == taken


def test_what_ends_in_a_closed_lane_has_begun():
    """Attempts that end while the run is being stopped have no outcome any more, but they are not told as never begun."""
    lane = lane_with(9)
    lane.closed = True
    lane.post(span(lane, NONE, NONE))
    lane.post(Record(b"", None))
    assert ([(0, 0.0, "process 1"), (1, 1.0, "process 1")], []) == (lane.late, list(lane.events))


def test_log_records_that_wait_are_few_and_each_gap_is_told_once(monkeypatch):
    """Records that come faster than they are handled fill no memory: one warning stands for those dropped; later ones arrive."""
    monkeypatch.setattr(_lane, "MOST_RECORDS", 1000)
    lane, record = Lane(1, b"", False), Record(bytes(200), None)
    for gaps in (1, 2):
        for _ in range(20):
            lane.post_record(record)
        assert [record, record, record, lane.events[3]] * gaps == list(lane.events)
        assert b"some are dropped" in lane.events[3].packed
        lane.logged = lane.recorded


def test_records_that_were_handled_do_not_wait(monkeypatch, executor, caplog):
    """However many records a run has had, none is dropped while they are handled as they come."""
    monkeypatch.setattr(_lane, "MOST_RECORDS", 1000)
    tasks = [Task(logging.warning, number) for number in range(9)]
    for _ in iter_parallel(tasks, executor=executor, buffersize=1):
        pass
    assert list(map(str, range(9))) == caplog.messages


def test_a_patient_run_has_more_at_hand():
    """A patient run has more attempts queued, so that its workers are busy until it looks."""
    patient, other = lane_with(9), lane_with(9, patient=False)

    for lane in (patient, other):
        lane.pace.limit = 7
    done_unseen = round(UNSEEN / AHEAD) * 7 * WORKERS

    assert patient.enough(WORKERS) - other.enough(WORKERS) == done_unseen + most_unseen(WORKERS)


@pytest.mark.parametrize(
    ("run", "patient", "folds"),
    [
        (lambda **options: run_parallel(abs, [-1], **options), True, False),
        (lambda **options: map_reduce(abs, [-1], max, initial=0, **options), True, True),
        (lambda **options: list(iter_parallel(abs, [-1], **options)), False, False),
        (lambda **options: run_parallel(abs, [-1], on_event=lambda event: None, **options), False, False),
        (lambda **options: run_parallel(abs, [-1], then=lambda outcome: (), **options), False, False),
    ],
)
def test_who_is_patient(monkeypatch, run, patient, folds):
    """A run is patient if nobody sees its outcomes before it is over; it says if they are folded one by one."""
    seen = []

    def lane_of(*args, **options):
        seen.append(Lane(*args, **options))
        return seen[-1]

    monkeypatch.setattr(_processes, "Lane", lane_of)
    run(executor="processes", max_workers=1)

    assert [(patient, folds)] == [(lane.patient, lane.folds) for lane in seen]


def test_a_run_with_a_checkpoint_is_not_patient(monkeypatch, tmp_path):
    """A run with a checkpoint is not patient, because outcomes should be on disk soon."""
    seen = []
    monkeypatch.setattr(
        _processes, "Lane", lambda *args, **options: seen.append(Lane(*args, **options)) or seen[-1]
    )
    run_parallel(abs, {"one": -1}, executor="processes", max_workers=1, checkpoint=tmp_path / "journal")

    assert [False] == [lane.patient for lane in seen]
