"""A program with a checkpointed run, for tests to kill: ``python resumable.py JOURNAL LOG EXECUTOR TASKS``.

Every execution of a task adds two lines to LOG: "begin KEY INSTANT" and "end KEY INSTANT".
"""

import os
import sys
import time

from parallelkit import run_parallel


def note(log, word, key):
    line = f"{word} {key} {time.monotonic()}\n".encode()
    log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(log, line)
    os.close(log)


def work(number, log):
    note(log, "begin", number)
    time.sleep(0.005)
    note(log, "end", number)
    return number * number


def main(journal, log, executor, tasks):
    name = "task {}".format
    run = {"executor": executor, "max_workers": 4, "checkpoint": journal}
    results = run_parallel(work, range(int(tasks)), key=name, args=(log,), **run)
    assert [number * number for number in range(int(tasks))] == results.values()


if __name__ == "__main__":
    main(*sys.argv[1:])
