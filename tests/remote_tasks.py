"""Tasks that tests run in worker processes. Imports next to nothing, because every worker imports it."""

import os
import signal
import sys
import time

runs = 0
arguments = []


def give_back(value):
    return value


def nothing(value):
    return None


def add(left, right, *, factor=1):
    return (left + right) * factor


def count_files(_):
    return len(os.listdir("/proc/self/fd"))


class BewareWarning(UserWarning):
    pass


class BeCarefulWarning(BewareWarning):
    pass


def warn(category):
    import warnings

    warnings.warn("beware", category, stacklevel=1)


def count_arguments(_, of):
    """How many sets that came as the argument in earlier runs are still here."""
    import weakref

    if not any(known() is of for known in arguments):
        arguments.append(weakref.ref(of))
    return sum(known() is not None and known() is not of for known in arguments)


def pid_of(item):
    return os.getpid()


def nap(seconds):
    time.sleep(seconds)
    return seconds


def close_and_nap(seconds):
    """Close all descriptors, as programs do that become daemons, including the worker's own."""
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
    """Call what ``table`` has for an item, ``(function, argument)``; return an item that is not in it."""
    if item in table:
        function, argument = table[item]
        return function(argument)
    return item


def tell(path, text=None):
    """Write ``text``, or the pid, into a FIFO; blocks until somebody opens it for reading."""
    with open(path, "w") as fifo:
        fifo.write(str(os.getpid()) if text is None else text)


def hear(path):
    """Read from a FIFO until all its writers have closed it."""
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
    """Report that it has begun, and end when a byte is written to ``go``; the test holds both FIFOs open."""
    with open(go, "rb", buffering=0) as sign:
        tell(begun)
        sign.read(1)


def have_child_and_hang(path):
    """Fork a child that sleeps for long, report its pid, and hang."""
    child = os.fork()
    if child == 0:
        os.close(2)
        time.sleep(1000)
    tell(path, str(child))
    while True:
        signal.pause()


def note(path, text):
    """Append a line, in one system call, so that it survives if the process is killed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


def end_as(path, number, end, _):
    """Note that it has begun, and come to its ``end``; a value is the number."""
    import builtins

    note(path, number)
    if end == "naps":
        time.sleep(number % 5 / 1000)
    elif end == "exits":
        os._exit(3)
    elif end == "handles SIGTERM":
        told = []
        before = signal.signal(signal.SIGTERM, lambda *_: told.append(number))
        time.sleep(0.005)
        signal.signal(signal.SIGTERM, before)
    elif end == "returns a lock":
        import threading

        return threading.Lock()
    elif hasattr(builtins, end):
        raise getattr(builtins, end)(number)
    return number


def fail_after(count, path):
    """Fail, as an initializer, after so many calls."""
    note(path, "begins")
    with open(path) as begins:
        if len(begins.readlines()) > count:
            raise LookupError


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
    """Note that it has begun, take up to 0.6 ms, and return a text that may be empty or long."""
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
    """Does harm when it is unpickled; ``where`` says what, and whether in the worker or in the parent."""

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
    """Whether this process is a worker, by its command line: doctests load the worker's modules in the parent, too."""
    return any(part.endswith("parallelkit/_worker/__main__.py") for part in sys.orig_argv)


def anything(path, item):
    """Note that it has begun, then do what the item says."""
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
    """Results of all kinds, in turn."""
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


def joined(*parts, end):
    return "".join(parts) + end


def square(x):
    return x * x


def invert(x):
    return 12 // x


def show(*args, **kwargs):
    return args, kwargs


class Thing:
    """An object to which a weak reference can be made, and on which a task may fail."""


def fail_on(thing):
    raise ValueError("not this one")


def start_and_leave(path):
    import subprocess

    child = subprocess.Popen(["sleep", "60"])
    path.write_text(str(child.pid))
    os._exit(3)


def crash(_):
    import ctypes

    ctypes.string_at(0)


def nap_and_count(item):
    time.sleep(0.006)
    return len(item)


def make_large(size):
    """A value that travels in the ring, in a block or in a file, depending on its size."""
    return "x" * size if size % 3 else b"x" * size


class Vast:
    """A value for which its reader has no memory."""

    def __reduce__(self):
        return fail, (MemoryError(),)


def scribble_on_ring(what):
    import gc
    import mmap

    from parallelkit._worker import _channel

    (ring,) = [found for found in gc.get_objects() if isinstance(found, _channel.Ring)]
    assert isinstance(ring.map, mmap.mmap)
    if what == "head":
        ring.head[_channel.HEAD] = 12345
    elif what == "frames":
        ring.head[_channel.SENT] = 12345
    os._exit(0)


def note_or_scribble(folder, index):
    """Note that this task ran; task 700 overwrites the count of commits instead, and ends its worker."""
    if index == 700:
        scribble_on_ring("head")
    with open(f"{folder}/{os.getpid()}", "a") as file:
        file.write(f"{index}\n")
    return index


def fork_and_wait(way):
    """What the parent returns, once the child has ended by what it does."""
    pid = os.fork()
    if pid == 0 and way == "raises":
        raise ValueError(way)
    return "child" if pid == 0 else ("parent", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def fork_and_log():
    """Fork a child that logs and ends; return its pid."""
    import logging

    pid = os.fork()
    if pid == 0:
        try:
            logging.getLogger("child").error("logged by a child")
        finally:
            os._exit(0)
    return pid


def log_in_child(_):
    """Return by how much the count of frames has changed."""
    import gc

    from parallelkit._worker import _channel

    (ring,) = [found for found in gc.get_objects() if isinstance(found, _channel.Ring)]
    before = ring.head[_channel.SENT]
    os.waitpid(fork_and_log(), 0)
    return ring.head[_channel.SENT] - before


def log_in_child_amid_a_send(_):
    """Fork as if another thread had something on its way to the parent; return the child's status."""
    import gc

    from parallelkit._worker._outbox import Outbox

    (outbox,) = [found for found in gc.get_objects() if isinstance(found, Outbox)]
    with outbox._lock:
        pid = fork_and_log()
    return os.waitpid(pid, 0)[1]


def log_beside_a_child(records):
    """Log so many long records while a forked child logs short ones; return its status."""
    import logging

    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(write)
            os.set_blocking(read, False)
            logging.getLogger("child").error("logged by a child")
            while not is_closed(read):
                logging.getLogger("child").error("logged by a child")
        finally:
            os._exit(0)
    for _ in range(records):
        logging.getLogger("parent").error("x" * 300_000)
    os.close(write)
    os.close(read)
    return os.waitpid(pid, 0)[1]


def is_closed(pipe):
    try:
        return not os.read(pipe, 1)
    except BlockingIOError:
        return False


def without_model(place):
    raise LookupError(f"no model at {place}")


def visit(page):
    return page.upper()


def refuse(item):
    if item:
        return item
    raise OSError("down")


def log_item(item):
    import logging

    logging.getLogger(__name__).warning("item %d", item)


def meet(folder, count):
    """Wait until ``count`` workers are here, so that each has one call; return the pid."""
    open(f"{folder}/{os.getpid()}", "w").close()
    end = time.monotonic() + 30
    while len(os.listdir(folder)) < count and time.monotonic() < end:
        time.sleep(0.001)
    return os.getpid()


class Unready:
    """Its pickle has one argument, and it takes two, as with many error classes (whose pickles tblib may have changed)."""

    def __init__(self, code, text):
        self.text = f"{code}: {text}"

    def __reduce__(self):
        return Unready, (self.text,)


def look_around(_):
    return os.getcwd(), os.environ.get("PARALLELKIT_TEST"), list(sys.path), sys.argv, sys.prefix


class Elsewhere:
    """``look_around``, as of a module that changes the directory as it is imported."""

    def __reduce__(self):
        return go_elsewhere, ()


def go_elsewhere():
    os.chdir("/")
    return look_around


def log_and(item):
    import logging

    logger = logging.getLogger("far")
    logger.debug("below the level")
    logger.info("item %s", item, extra={"own": [item]})
    if item == 1:
        try:
            raise ValueError("logged")
        except ValueError:
            logger.exception("failed")
    if item == 2:
        os._exit(1)
    return item


def log_awkwardly(_):
    import logging
    import threading

    logger = logging.getLogger("far")
    logger.info("locked", extra={"own": threading.Lock()})
    logger.info("%d items", "some")
    return "done"


def log_at(levels):
    import logging

    for level in levels:
        logging.getLogger("far").log(level, "at %d", level)


def third_of(number):
    import decimal

    return str(decimal.Decimal(number) / 3)


def trap_nothing(signal):
    import decimal

    decimal.getcontext().traps[signal] = False
