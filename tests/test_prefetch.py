import threading
import time

import pytest

from parallelkit import InputError, iter_parallel
from parallelkit._input._intake import Intake
from parallelkit._input._prefetch import AHEAD, Prefetch
from parallelkit._input._shape import Shape


def started(source):
    prefetch = Prefetch(iter(source))
    prefetch.start()
    return prefetch


def broken():
    yield 1
    raise OSError("no more")


def test_items_come_in_order_and_end():
    """All of them, however many; the end stays the end."""
    prefetch = started(range(5 * AHEAD))
    assert list(range(5 * AHEAD)) == list(prefetch)
    assert [] == list(prefetch)


def test_an_error_comes_in_its_place():
    """Behind what was read before it."""
    prefetch = started(broken())
    assert 1 == next(prefetch)
    with pytest.raises(OSError, match="no more"):
        next(prefetch)


def test_it_reads_no_further_ahead_than_it_may():
    """A source without an end is read as far as there is room; closing ends the thread."""
    read = []
    full = threading.Event()

    def source():
        while True:
            read.append(None)
            if len(read) > AHEAD:
                full.set()
            yield None

    prefetch = started(source())
    assert full.wait(10)
    assert prefetch.available() in (AHEAD, AHEAD + 1)
    [reader] = [thread for thread in threading.enumerate() if thread.name == "parallelkit_input"]
    prefetch.close()
    reader.join(10)
    assert not reader.is_alive()
    assert len(read) <= AHEAD + 2


def test_no_more_is_taken_than_there_is_room_for():
    """However much has come already."""
    prefetch = started(range(9))
    while prefetch.available() < 10:
        time.sleep(0.001)
    intake = Intake(prefetch, Shape())
    assert [1, 2, 2, 2] == [len(intake.read(2).items) for _ in range(4)]


def test_a_stream_waits_for_outcomes_and_for_input_at_once():
    """What is done is yielded while the source has nothing; what then comes is run; the error ends it."""
    asked = threading.Semaphore(0)

    def source():
        for number in range(3):
            yield number
            asked.acquire()
        raise OSError("no more")

    stream = iter_parallel(str, started(source()), max_workers=2)
    for number in range(3):
        assert str(number) == next(stream).value
        asked.release()
    with pytest.raises(InputError, match="after 3 items"):
        next(stream)


def test_a_full_window_waits_too():
    """Nothing is read where there is no room, and nothing is lost when there is."""
    stream = iter_parallel(abs, started(range(-500, 0)), buffersize=3, order="input")
    assert list(range(500, 0, -1)) == [outcome.value for outcome in stream]


def test_an_input_that_then_ends_is_not_waited_for():
    """A stream ends with the error of ``then``, although its source has nothing yet and may never have."""
    gone, waits, awaited = threading.Event(), threading.Event(), []

    def source():
        yield -1
        awaited.append(gone.wait(5))

    def then(outcome):
        assert waits.wait(10)
        raise OSError("no more")

    stream = iter_parallel(abs, started(source()), then=then)
    assert 1 == next(stream).value
    threading.Timer(0.03, waits.set).start()  # by then, the stream waits for input and outcomes
    with pytest.raises(InputError, match="then raised OSError"):
        next(stream)
    assert not awaited
    gone.set()
