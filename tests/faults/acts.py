"""The tasks of the promise tests. Imports next to nothing, because every worker imports it."""

import errno
import os
import signal
import time
from contextlib import suppress

LONG = 1000.0


def note(path, text=""):
    """Append a line with the pid, in one system call, so that it survives if the process is killed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{os.getpid()} {text}\n".encode())
    os.close(descriptor)


def lines(path):
    """What was noted: pairs of pid and text."""
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return [
            (int(number), text) for number, _, text in (line.rstrip("\n").partition(" ") for line in file)
        ]


def wait_for_lines(path, count, patience=20.0):
    """Wait until ``count`` lines have been noted, and return them."""
    deadline = time.monotonic() + patience
    while len(found := lines(path)) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(found)} of {count} lines in {path}")
        time.sleep(0.002)
    return found


def noted(item, path):
    note(path, item)
    return item


def note_and_hang(item, path):
    note(path, item)
    while True:
        time.sleep(LONG)


def meet(item, path, count):
    """Return as soon as ``count`` tasks have begun; until then each occupies its worker."""
    note(path, item)
    wait_for_lines(path, count)
    return item


def hang_if(item, bad, path):
    return note_and_hang(item, path) if item in bad else noted(item, path)


def leave_if(item, bad, path):
    note(path, item)
    if item in bad:
        os._exit(3)
    return item


def nap(seconds):
    time.sleep(seconds)
    return seconds


def all_kinds(item):
    """Every seventh task goes wrong, the next one in another way."""
    kind, rest = divmod(item, 7)
    if rest == 0:
        WRONGS[kind % len(WRONGS)]()
    return item


def _raise():
    raise ValueError("wrong")


def _leave():
    os._exit(3)


def _kill():
    os.kill(os.getpid(), signal.SIGKILL)


def _crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def _hang():
    while True:
        time.sleep(LONG)


def _exit():
    raise SystemExit(2)


WRONGS = [_raise, _leave, _kill, _crash, _hang, _exit]


def die_once(item, path):
    """The first attempt dies; the second returns whether the process of the first still exists."""
    if not lines(path):
        note(path)
        os._exit(3)
    (before, _), *_ = lines(path)
    return alive(before)


def alive(pid):
    """Whether the process exists: it runs, or is a zombie."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno != errno.ESRCH
    return True


def fork_hanging_child(path, leave_group=False):
    child = os.fork()
    if child == 0:
        if leave_group:
            os.setsid()
        time.sleep(LONG)
    note(path, child)
    time.sleep(LONG)


class TryLater(Exception):
    """Asks for a retry after ``retry_after`` seconds, which no jitter may shorten."""

    def __init__(self, retry_after):
        super().__init__(retry_after)
        self.retry_after = retry_after


def fail_once(item, path, retry_after):
    """Fail at the first attempt of item 0."""
    first = not any(text == str(item) for _, text in lines(path))
    note(path, item)
    if item == 0 and first:
        raise TryLater(retry_after)
    return item


def meet_no_other(item, path):
    """Meet the task with the same number in the other group, between the notes "in GROUP" and "out GROUP"."""
    group, number = item
    note(path, f"in {group}")
    meet(item, f"{path} {number}", 2)
    time.sleep(0.02)
    note(path, f"out {group}")
    return item


class Thing:
    """An object to which a weak reference can be made."""

    def __init__(self, number=0):
        self.number = number


def fail_at(thing, number):
    if thing.number % number == 0:
        raise ValueError("no")


def hold(item, path):
    wait_for_lines(path, 1)
    return item


def last_first(item, path):
    """End tasks 0 to 3 in reverse order: each waits until the later ones are noted at ``path``. Task 2 fails."""
    wait_for_lines(path, 3 - item)
    if item == 2:
        raise ValueError("in its place all the same")
    return item


def hang_or_fail(item, path):
    """Item 0 fails once item 1 is running, which never ends; all others return."""
    note(path, item)
    if item == 0:
        wait_for_lines(path, 2)
        raise ValueError("first")
    if item == 1:
        while True:
            time.sleep(0.01)
    return item


def nap_between_notes(item, path):
    """Note the begin, sleep for up to 20 ms, note the end, and return the square of the item."""
    note(path, f"begun {item}")
    time.sleep(item * 7919 % 1000 / 1000 * 0.02)
    note(path, f"ended {item}")
    return item * item


def noted_in_time(item, path):
    """Note the item, after long enough that ``run_parallel`` hands such tasks to processes one by one."""
    time.sleep(0.005)
    return noted(item, path)


class Large:
    def __init__(self):
        self.content = bytes(1_000_000)


def modes(item):
    """The permissions of group and others on every file and pipe of ours that this process has open."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the folder itself
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith(("/memfd:parallelkit", "pipe:")):
                found[target] = os.stat(f"/proc/self/fd/{name}").st_mode & 0o077
    return item, found


def abs_later(number, folder):
    while not (folder / "go").exists():
        time.sleep(0.01)
    (folder / "gone").touch()
    return abs(number)


def set_an_alarm(item):
    """Set a timer and do not stop it, as a careless task may; any other item runs long enough to be hit by that timer."""
    if item == "alarm":
        signal.alarm(1)
    elif isinstance(item, str):
        signal.setitimer(getattr(signal, item), 0.1)
    else:
        end = time.process_time() + 0.15
        while time.process_time() < end:
            pass
        time.sleep(item)
    return item


class Signals:
    """Sends its process a signal when it is pickled there."""

    def __init__(self, pid):
        self.pid = pid

    def __reduce__(self):
        return arrive, (self.pid, strike(self.pid))


def arrive(pid, _):
    return Arrived(pid)


class Arrived:
    """Sends its process a signal when it is unpickled there."""

    def __init__(self, pid):
        self.pid = pid

    def __reduce__(self):
        return strike, (self.pid,)


def strike(pid):
    if os.getpid() == pid and callable(signal.getsignal(signal.SIGUSR2)):  # otherwise it would end the tests
        signal.raise_signal(signal.SIGUSR2)


class StruckOnceError(Exception):
    """An error that sends its process a signal the first time that it is pickled."""

    struck = False

    def __reduce__(self):
        if not StruckOnceError.struck:
            StruckOnceError.struck = True
            signal.raise_signal(signal.SIGUSR2)
        return StruckOnceError, ()


def raise_under_an_alarm(item):
    signal.signal(signal.SIGUSR2, lambda number, frame: 1 // 0)
    raise StruckOnceError
