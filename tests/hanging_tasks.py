"""Tasks that hang until a test releases them, whose stacks it looks at. Imports little, because every worker imports it."""

import signal
import threading
import time

from parallelkit._worker._channel import STACK_SIGNAL

RELEASED = threading.Event()


def hang():
    RELEASED.wait(60)


def outer(item):
    hang()


def wait_in(item):
    RELEASED.wait(60)


def crash():
    signal.raise_signal(signal.SIGSEGV)


async def sleep_in(item):
    import asyncio

    await asyncio.sleep(60)


def return_when_asked(item):
    def interrupt(*_):
        raise InterruptedError

    signal.signal(STACK_SIGNAL, interrupt)
    try:
        time.sleep(60)
    except InterruptedError:
        return "half of it"
