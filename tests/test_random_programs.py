"""Random programs of submit, cancel, map, wait and shutdown end alike on our executors and on the standard pools."""

import asyncio
import random
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from threading import Event, Semaphore

import pytest

from parallelkit import ProcessExecutor, ThreadExecutor

PATIENCE = 10.0  # seconds, which nothing here takes


def compute(number):
    if number % 5 == 3:
        raise ValueError(number)
    if number % 7 == 6:
        raise StopIteration(number)
    if number % 11 == 10:
        raise TimeoutError("not that of a wait")
    return number * number


def outcome(call):
    """What a call returns or raises, in a form that can be compared."""
    try:
        return call()
    except (AssertionError, KeyboardInterrupt):
        raise
    except BaseException as error:
        return type(error), str(error)


class Program:
    """What a seed chooses to do with an executor; ``seen`` is all that its user can observe."""

    def __init__(self, seed, executor, width):
        self.chance, self.executor, self.width = random.Random(seed), executor, width
        self.futures, self.called, self.seen = [], [], []
        self.dropped = False  # whether a shutdown has cancelled what had not begun

    def run(self, *steps):
        with self.executor:
            for _ in range(self.chance.randint(4, 14)):
                self.seen.append(outcome(self.chance.choice(steps)))
        self.seen += [outcome(partial(future.result, PATIENCE)) for future in self.futures]
        return self.seen, sorted(self.called)

    def submit(self):
        number = len(self.futures)
        future = self.executor.submit(compute, self.chance.randrange(20))
        future.add_done_callback(lambda future: self.called.append((number, future.cancelled())))
        self.futures.append(future)

    def map(self):
        """All values; in time, in chunks, and a few calls ahead, which says how much of the input was read."""
        numbers, read = self.chance.choices(range(20), k=5), []
        options = {"timeout": self.chance.choice([None, PATIENCE]), "chunksize": self.chance.randint(1, 3)}
        if sys.version_info >= (3, 14):
            options["buffersize"] = self.chance.choice([None, 1, 2])
        try:
            values = self.executor.map(
                compute, (read.append(number) or number for number in numbers), **options
            )
            self.seen.append(read.copy())
            return list(values)
        finally:
            self.seen.append(read)

    def leave_map(self):
        """The first value only; what has not begun then is cancelled."""
        values = self.executor.map(abs, range(5), chunksize=self.chance.randint(1, 3))
        first = next(values)
        values.close()
        return first

    def complete(self):
        # After such a shutdown, those that were cancelled never come out of the standard pools.
        awaited = [one for one in self.futures if not (self.dropped and one.cancelled())]
        return len(list(as_completed(awaited, PATIENCE)))

    def ask_one(self):
        future = self.chance.choice(self.futures)
        error = future.exception(PATIENCE)
        return type(error), future.done(), future.cancel(), future.cancelled(), future.running()

    def shut_down(self):
        self.executor.shutdown(wait=self.chance.random() < 0.5)

    def cancel_behind_blocked(self):
        """All slots are taken while calls are submitted, cancelled, awaited by asyncio, or cancelled by a shutdown."""
        begun, go_on = Semaphore(0), Event()
        try:
            blocked = [
                self.executor.submit(lambda: (begun.release(), go_on.wait(PATIENCE)))
                for _ in range(self.width)
            ]
            for _ in blocked:
                assert begun.acquire(timeout=PATIENCE)
            first = len(self.futures)
            for _ in range(4):
                self.submit()
            for future in self.chance.choices(self.futures[first:], k=2):
                self.seen.append((future.cancel(), future.cancel(), future.cancelled(), future.done()))
            self.seen.append(
                [(one.cancel(), one.running(), outcome(partial(one.result, 0))) for one in blocked]
            )
            asyncio.run(self.cancel_from_asyncio(self.futures[-1]))
            if self.chance.random() < 0.3:
                self.dropped = True
                self.executor.shutdown(wait=False, cancel_futures=True)
        finally:
            go_on.set()

    async def cancel_from_asyncio(self, future):
        asyncio.wrap_future(future).cancel()
        await asyncio.sleep(0)
        self.seen.append(future.cancelled())


@pytest.mark.parametrize("seed", range(100))
def test_threads_do_what_the_standard_pool_does(seed):
    """Values, errors and their texts, states, callbacks, and what is refused, are those of ThreadPoolExecutor."""
    seen = []
    for kind in (ThreadPoolExecutor, ThreadExecutor):
        width = 1 + seed % 3
        program = Program(seed, kind(width), width)
        steps = (
            program.submit,
            program.map,
            program.leave_map,
            program.complete,
            program.ask_one,
            program.cancel_behind_blocked,
        )
        seen.append(program.run(program.submit, *steps, program.shut_down))
    assert seen[0] == seen[1]


@pytest.mark.all
@pytest.mark.parametrize("seed", range(20))
def test_processes_do_what_the_standard_pool_does(seed):
    """The same of ProcessPoolExecutor."""
    seen = []
    for kind in (partial(ProcessPoolExecutor, mp_context=get_context("spawn")), ProcessExecutor):
        program = Program(seed, kind(2), 2)
        steps = (program.submit, program.map, program.leave_map, program.complete, program.ask_one)
        seen.append(program.run(*steps, program.shut_down))
    assert seen[0] == seen[1]
