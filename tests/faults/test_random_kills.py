"""Promise 2 under fire: workers are killed at random moments, and the fate of every task is reported truthfully."""

import os
import random
import signal
import threading
import time
from collections import Counter
from functools import partial

import acts
import pytest
import remote_tasks as far
from outside import soon
from port_driver import drive_port, opened

from parallelkit._died import WorkerDied
from parallelkit._executors._contract import Job
from parallelkit._executors._processes import ProcessEngine


class Killer(threading.Thread):
    """A thread that kills random workers at random moments until ``enough`` is set, but at most so many.

    On a busy machine, a worker that takes long to start would else be killed as soon as it has done one task.
    """

    def __init__(self, engine, seed, longest, most):
        super().__init__(daemon=True)
        self.engine = engine
        self.random = random.Random(seed)
        self.longest = longest
        self.most = most
        self.kills = 0
        self.enough = threading.Event()

    def run(self):
        while self.kills < self.most and not self.enough.wait(self.random.uniform(0, self.longest)):
            ready = [worker for worker in tuple(self.engine._supervisor.pool.workers) if worker.done]
            if ready:
                victim = self.random.choice(ready)
                try:
                    signal.pidfd_send_signal(victim.pidfd, signal.SIGKILL)
                    self.kills += 1
                except OSError:
                    pass  # it was reaped in the meantime


@pytest.mark.parametrize(
    ("tasks", "seed"),
    [(700, 0), *(pytest.param(4000, seed, marks=pytest.mark.all) for seed in range(1, 26))],
)
def test_random_kills_blame_nobody_wrongly(tmp_path, tasks, seed):
    """No result is lost, no task runs twice, every blamed task had begun, and every value is right."""
    path = str(tmp_path / "begun")
    engine = ProcessEngine(2)
    killer = Killer(engine, seed, 0.02, tasks // 8)
    killer.start()
    try:
        with opened(engine, partial(far.note_and_work, path)) as port:
            seen = drive_port(port, list(range(tasks)))
    finally:
        killer.enough.set()
        killer.join()
        engine.close()
    assert killer.kills > tasks / 1000, "fewer are no trial"
    assert seen.failures
    judge(seen, tasks, path)


def judge(seen, tasks, path):
    with open(path) as file:
        begun = Counter(int(line) for line in file)
    assert set(range(tasks)) == set(seen.values) | set(seen.failures)
    assert {1} == set(begun.values()), "a task ran twice"
    for index, value in seen.values.items():
        assert "x" * (index % 5 * index % 700) == value
    for ended in seen.failures.values():
        assert isinstance(ended.error, WorkerDied)
        assert signal.SIGKILL == ended.error.signal
    # A task may have been killed between its start and its first line, but rarely.
    silent = [index for index in seen.failures if index not in begun]
    assert len(silent) <= max(2, len(seen.failures) // 3)


@pytest.mark.parametrize("tasks", [400, 3_000])
@pytest.mark.all
def test_naps_under_fire(tasks, tmp_path):
    """Tasks of 0 to 20 ms in eight workers that are killed at random each have one outcome and run once, and no value is made up."""
    path = str(tmp_path / "notes")
    engine = ProcessEngine(8)
    killer = Killer(engine, tasks, 0.03, tasks // 2)
    killer.start()
    try:
        with opened(engine, partial(acts.nap_between_notes, path=path)) as port:
            seen = drive_port(port, list(range(tasks)))
    finally:
        killer.enough.set()
        killer.join()
        engine.close()
    notes = Counter(text for _, text in acts.lines(path))
    begun = {item for item in range(tasks) if notes[f"begun {item}"]}
    ended = {item for item in range(tasks) if notes[f"ended {item}"]}
    assert {1} == set(notes.values()), "a task ran twice"
    assert {item: item * item for item in seen.values} == seen.values
    assert tasks == len(seen)
    assert set(seen.values) <= ended
    # Now and then a task is killed between its last line and its commit, or between its start and its first line.
    assert len(ended - set(seen.values)) <= max(2, killer.kills // 10)
    assert len(set(seen.failures) - begun) <= max(2, killer.kills // 10)
    assert killer.kills >= tasks // 100
    assert len(seen.failures) <= killer.kills


def test_workers_die_with_their_parent(tmp_path):
    """When the parent is killed, its workers and their children are soon gone, even if it has forked a child that goes on."""
    paths = [str(tmp_path / name) for name in ("child", "fork")]
    for path in paths:
        os.mkfifo(path)
    parent = os.fork()
    if parent == 0:
        try:
            port = ProcessEngine(1).open(Job(far.have_child_and_hang))
            port.start([(0, 1, paths[0], None)])
            while not port.running():
                time.sleep(0.001)
            fork = os.fork()
            if fork:
                far.tell(paths[1], str(fork))
            time.sleep(1000)
        finally:
            os._exit(1)
    fork, child = (int(far.hear(path)) for path in reversed(paths))
    worker = parent_of(child)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    try:
        assert False is soon(lambda: any(map(is_running, (worker, child))), False)
        assert is_running(fork)
    finally:
        os.kill(fork, signal.SIGKILL)


def parent_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
