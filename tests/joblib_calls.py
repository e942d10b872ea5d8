"""Calls by joblib that tests make, and what their workers do. Imports little, because every worker imports it."""

import os
import time

from joblib import Parallel, delayed
from remote_tasks import meet

PATIENCE = 30.0


def parallel(calls, **options):
    """The results of these calls, each a batch of its own."""
    return Parallel(**{"batch_size": 1, **options})(calls)


def pids(tmp_path, name):
    """The pids of both workers."""
    folder = tmp_path / name
    folder.mkdir()
    return set(parallel(delayed(meet)(str(folder), 2) for _ in range(2)))


def is_gone(pid):
    """Whether a process ends within PATIENCE."""
    end = time.monotonic() + PATIENCE
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
        time.sleep(0.001)
    return not os.path.exists(f"/proc/{pid}")


def write_own(array, number):
    array[number] = number
    return type(array).__name__
