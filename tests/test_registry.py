"""The threads that an engine has had."""

import threading

from parallelkit._executors._thread._registry import Registry


class Worker:
    """One thread of an engine."""

    def __init__(self, number, thread=None):
        self.number, self.thread = number, thread


def test_threads_that_have_ended_are_not_kept():
    """A stream that goes on for days, with a pause now and then, has a new thread after each, by the name of the last."""
    registry = Registry()
    for _ in range(20):
        worker = Worker(registry.number())
        assert worker.number == 0
        worker.thread = threading.Thread(target=registry.leave, args=(worker,))
        worker.thread.start()
        worker.thread.join()
    assert 1 == len(registry._left)


def test_the_ends_of_those_that_have_left_are_waited_for():
    """Whoever closes an engine finds no thread of it afterwards, nor waits for itself."""
    registry, left, end = Registry(), threading.Event(), threading.Event()

    def work():
        registry.leave(worker)
        left.set()
        end.wait()

    def close():
        registry.leave(Worker(registry.number(), threading.current_thread()))
        registry.join()

    worker = Worker(registry.number())
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
