import threading

import pytest

from parallelkit import InputError, iter_parallel
from parallelkit._input._inlet import AHEAD, Inlet


def started(source):
    inlet = Inlet(iter(source))
    inlet.start()
    return inlet


def broken():
    yield 1
    raise OSError("no more")


def test_items_come_in_order_and_end():
    """All of them, however many; the end stays the end."""
    inlet = started(range(5 * AHEAD))
    assert list(range(5 * AHEAD)) == list(inlet)
    assert [] == list(inlet)


def test_an_error_comes_in_its_place():
    """Behind what was read before it."""
    inlet = started(broken())
    assert 1 == next(inlet)
    with pytest.raises(OSError, match="no more"):
        next(inlet)


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

    inlet = started(source())
    assert full.wait(10)
    assert inlet.available() in (AHEAD, AHEAD + 1)
    inlet.close()
    next(inlet)
    assert len(read) <= AHEAD + 2


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
