"""The threads that an engine has had."""

import threading

from parallelkit._executors._thread._roll import Roll


class Worker:
    """One thread of an engine."""

    def __init__(self, number, thread=None):
        self.number, self.thread = number, thread


def test_threads_that_have_ended_are_not_kept():
    """A stream that goes on for days, with a pause now and then, has a new thread after each, by the name of the last."""
    roll = Roll()
    for _ in range(20):
        worker = Worker(roll.number())
        assert worker.number == 0
        worker.thread = threading.Thread(target=roll.leave, args=(worker,))
        worker.thread.start()
        worker.thread.join()
    assert 1 == len(roll._left)


def test_the_ends_of_those_that_have_left_are_waited_for():
    """Whoever closes an engine finds no thread of it afterwards, nor waits for itself."""
    roll, left, end = Roll(), threading.Event(), threading.Event()

    def work():
        roll.leave(worker)
        left.set()
        end.wait()

    def close():
        roll.leave(Worker(roll.number(), threading.current_thread()))
        roll.join()

    worker = Worker(roll.number())
    worker.thread = threading.Thread(target=work)
    worker.thread.start()
    left.wait()
    waiting = threading.Thread(target=close)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    end.set()
    waiting.join()
    assert not worker.thread.is_alive()
