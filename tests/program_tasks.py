"""The tasks of the random programs of test_programs.py, for all executors."""

import os
import threading


class Untrue(Exception):
    """False in a boolean context, like an empty collection of details."""

    def __len__(self):
        return 0


class NothingSet(Exception):
    def __setattr__(self, name, value):
        raise AttributeError(name)


class HoldsLock(Exception):
    def __init__(self):
        super().__init__("locked")
        self.lock = threading.Lock()


class NotEvenItself:
    """A value that cannot be compared, hashed, or tested for truth."""

    def __eq__(self, other):
        raise RuntimeError("compared")

    def __hash__(self):
        raise RuntimeError("hashed")

    def __bool__(self):
        raise RuntimeError("asked")


def fail_with_cause():
    try:
        raise KeyError("cause")
    except KeyError as error:
        raise ValueError("no") from error


VALUES = {
    "None": lambda: None,
    "an error": lambda: ValueError("as a value"),
    "no truth": NotEvenItself,
    "large": lambda: bytes(200_000),
    "a dict": lambda: {"a": 1, "b": None, "c": [1], "d": {}},
    "a lock": threading.Lock,
}
ERRORS = {
    "ValueError": lambda: ValueError("no"),
    "OSError": lambda: OSError(5, "no"),
    "group": lambda: ExceptionGroup("no", [ValueError("no"), OSError("no")]),
    "StopIteration": lambda: StopIteration("no"),
    "SystemExit": lambda: SystemExit(3),
    "GeneratorExit": lambda: GeneratorExit("no"),
    "Untrue": lambda: Untrue("no"),
    "NothingSet": lambda: NothingSet("no"),
    "HoldsLock": HoldsLock,
}


def attempt(task, *args, **kwargs):
    """The next attempt of a task ``(folder, name, ends)``: ``ends`` says how each attempt ends; a file counts them."""
    folder, name, ends = task
    log = os.open(os.path.join(folder, name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(log, b".")
        number = os.fstat(log).st_size
    finally:
        os.close(log)
    return come_to(ends[min(number, len(ends)) - 1], args, kwargs)


def attempt_of(folder, name, ends, *args, **kwargs):
    """``attempt``, with the task as separate arguments, for ``star``."""
    return attempt((folder, name, ends), *args, **kwargs)


def come_to(end, args, kwargs):
    if end == "arguments":
        return args, kwargs
    if end == "ValueError with a cause":
        fail_with_cause()
    if end in ERRORS:
        raise ERRORS[end]()
    return VALUES[end]()
