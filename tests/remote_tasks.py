"""Functions that tests run in worker processes. Imports next to nothing, for every worker imports it."""

import os
import signal
import sys
import time

runs = 0


def give_back(value):
    return value


def nothing(value):
    return None


def add(left, right, *, factor=1):
    return (left + right) * factor


def pid_of(item):
    return os.getpid()


def nap(seconds):
    time.sleep(seconds)
    return seconds


def close_and_nap(seconds):
    """As those do that become daemons: the worker's own descriptors are closed, too."""
    os.closerange(3, 256)
    time.sleep(seconds)
    return seconds


def fail(error):
    raise error


def leave(code):
    os._exit(code)


def end_by(number):
    os.kill(os.getpid(), number)
    signal.pause()


def on(table, item):
    """Do to each item what a table says: ``(function, argument)``; what is not in it comes back."""
    if item in table:
        function, argument = table[item]
        return function(argument)
    return item


def tell(path, text=None):
    """Write into a FIFO, which blocks until somebody reads it."""
    with open(path, "w") as fifo:
        fifo.write(str(os.getpid()) if text is None else text)


def hear(path):
    """Read from a FIFO until everybody who writes it has closed it."""
    with open(path) as fifo:
        return fifo.read()


def tell_and_hang(path):
    tell(path)
    while True:
        signal.pause()


def tell_and_hear(paths):
    mine, yours = paths
    tell(mine)
    return hear(yours)


def hold(begun, go):
    """Tell that it has begun, and end when somebody writes a byte; both FIFOs are held open by the test."""
    with open(go, "rb", buffering=0) as sign:
        tell(begun)
        sign.read(1)


def have_child_and_hang(path):
    """A child that would sleep for long; its pid is told."""
    child = os.fork()
    if child == 0:
        os.close(2)
        time.sleep(1000)
    tell(path, str(child))
    while True:
        signal.pause()


def note(path, text):
    """Append a line; a line is written at once, so it tells what had begun when a process was killed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


def count_runs(item):
    global runs
    runs += 1
    return os.getpid(), runs


def set_variable(name, value):
    os.environ[name] = value


def get_variable(name):
    return os.environ.get(name)


def kind_of(item):
    return type(item).__name__


def repeat(text, times):
    return text * times


def long_bytes(size):
    return b"x" * size


def loaded_modules(_):
    return list(sys.modules)


def note_and_work(path, item):
    """Tell that it has begun; take a little time; give back something long or short."""
    note(path, item)
    end = time.perf_counter() + item % 7 * 1e-4
    while time.perf_counter() < end:
        pass
    return "x" * (item % 5 * item % 700)


kept = b""


def keep(value):
    global kept
    kept = value


def measure_all(item, argument):
    return len(kept), len(argument)


class Bomb:
    """Goes off when it is unpickled in the process it is meant for."""

    def __init__(self, where):
        self.where = where

    def __reduce__(self):
        return explode, (self.where,)


def explode(where):
    inside = is_worker()
    if where == "out" and not inside:
        raise SystemExit("boom")
    if where == "interrupt" and not inside:
        raise KeyboardInterrupt
    if where == "Ctrl-C" and not inside:
        signal.raise_signal(signal.SIGINT)
    if where == "in" and inside:
        raise SystemExit("boom")
    if where == "die" and inside:
        os._exit(9)
    if where == "hang" and inside:
        time.sleep(1000)
    return Bomb(where)


def is_worker():
    """By the flags that only workers are started with: their modules are loaded here too, for doctests."""
    return any(part.endswith("parallelkit/_worker/__main__.py") for part in sys.orig_argv)


def anything(path, item):
    """Do what the item says, after having noted that it has begun."""
    number, deed = item
    note(path, number)
    if deed == "spin":
        end = time.perf_counter() + 1e-4
        while time.perf_counter() < end:
            pass
    elif deed == "nap":
        time.sleep(0.004)
    elif deed == "sleep":
        time.sleep(0.03)
    elif deed == "raise":
        raise ValueError(number)
    elif deed == "leave":
        os._exit(number % 100)
    elif deed == "hang":
        time.sleep(1000)
    elif deed == "long":
        return number, "x" * 400_000
    return number, None


def row_of(number):
    return {"id": number, "name": f"customer {number}", "score": number / 7, "tags": ["new", "eu"]}


def other_row_of(number):
    return {"number": number, "half": number / 2, "größe": "weiß"}


def one_of_all(number):
    """Results of every kind that there is, in turn."""
    if number % 10 == 9:
        raise LookupError(f"no {number}")
    return (
        row_of(number),
        {},
        row_of(number),
        other_row_of(number),
        {"text": "x" * 600, "number": number},
        {"number": complex(number)},
        None,
        number,
        row_of(number),
    )[number % 10]
