"""Promise 10: no leaks. No run leaves a thread, process, descriptor, semaphore or shared memory behind."""

import os
import threading
from functools import partial

import acts
import leaks
import pytest
import remote_tasks as far
from outside import MARK, Program, look_at, rarely, run_script, soon

from parallelkit import (
    ProcessExecutor,
    RateLimit,
    Retry,
    TaskFailures,
    ThreadExecutor,
    first_success,
    iter_parallel,
    map_reduce,
    run_parallel,
)
from parallelkit._executors._process._spawn import THREADS

# leaks.py checks what every test leaves, after a grace period. Here the check follows immediately after the call:
# when a run returns, nothing may still be on its way out.


def nothing_left(run):
    before = leaks.look()
    run()
    return leaks.leaks(before, leaks.look(), 0)


RUNS = {
    "a run": lambda **options: run_parallel(far.give_back, range(50), **options),
    "a run with errors": lambda **options: run_parallel(far.fail, [ValueError(1)] * 20, **options),
    "a run stopped by failures": lambda **options: run_parallel(
        far.fail, [KeyError(1)] * 50, max_failures=1, **options
    ),
    "a run stopped by its timeout": lambda **options: run_parallel(
        acts.nap, [0.2] * 9, run_timeout=0.05, **options
    ),
    "retries": lambda **options: run_parallel(
        far.fail, [ValueError(1)] * 5, retries=Retry(2, delay=0), **options
    ),
    "a limited run": lambda **options: run_parallel(abs, range(9), limits=RateLimit(5, per=0.01), **options),
    "a stream": lambda **options: list(iter_parallel(far.give_back, range(50), **options)),
    "a stream half read": lambda **options: next(iter_parallel(far.give_back, range(50), **options)),
    "a stream never begun": lambda **options: iter_parallel(far.give_back, range(50), **options),
    "a stream closed": lambda **options: close_after_one(iter_parallel(far.give_back, range(50), **options)),
    "an empty run": lambda **options: run_parallel(abs, [], **options),
    "an error raised": lambda **options: raising(
        ValueError, far.fail, [ValueError(1)], on_error="raise", **options
    ),
    "a bad option": lambda **options: raising(ValueError, abs, [1], order="none", **options),
    "map_reduce": lambda **options: map_reduce(abs, range(9), max, initial=0, **options),
    "first_success": lambda **options: first_success(
        [partial(far.give_back, n) for n in range(9)], **options
    ),
    "large values": lambda **options: run_parallel(far.long_bytes, [3_000_000] * 4, **options),
    "no failures": lambda **options: raise_failures(run_parallel(far.fail, [ValueError(1)], **options)),
}


def close_after_one(stream):
    next(stream)
    stream.close()


def raising(kind, *args, **options):
    with pytest.raises(kind):
        run_parallel(*args, **options)


def raise_failures(results):
    with pytest.raises(TaskFailures):
        results.raise_failures()


ABANDONS = {("a run stopped by its timeout", "threads")}
CUTS_OFF = {"a run stopped by failures", "a stream half read", "a stream closed", "first_success"}
"""Runs that end while tasks run, if only for a microsecond; a thread cannot be killed."""


@pytest.mark.parametrize(
    ("what", "executor"),
    [(what, how) for how in ("processes", "threads") for what in RUNS if (what, how) not in ABANDONS],
)
def test_nothing_is_left_when_the_run_returns(what, executor):
    """At the very moment a run returns, no thread, process, descriptor or shared memory is left."""
    run = partial(RUNS[what], executor=executor, max_workers=2)
    run()  # what is imported or opened once per program is no leak
    if executor == "threads" and what in CUTS_OFF:
        before = leaks.look()
        run()
        assert [] == leaks.wait_until_gone(before, 0)
    else:
        assert [] == nothing_left(run)


def test_deaths_and_kills_leave_nothing():
    """Worker deaths and kills leave nothing behind."""

    def run():
        run_parallel(acts.all_kinds, range(20), executor="processes", max_workers=2, timeout=0.2)

    run()
    assert [] == nothing_left(run)


@pytest.mark.parametrize("make", [ThreadExecutor, ProcessExecutor])
def test_executor_leaves_nothing(make):
    """A closed executor leaves nothing, whether it was used for runs, ``map`` or ``submit``."""

    def use():
        with make(2) as executor:
            run_parallel(far.give_back, range(20), executor=executor)
            list(executor.map(far.give_back, range(20)))
            executor.submit(far.fail, ValueError(1)).exception()

    use()
    assert [] == nothing_left(use)


@pytest.mark.parametrize("make", [ThreadExecutor, ProcessExecutor])
def test_forgotten_executor_leaves_nothing(make):
    """An executor that is dropped without a shutdown leaves nothing."""
    before = leaks.look()
    run_parallel(far.give_back, range(20), executor=make(2))
    assert [] == leaks.wait_until_gone(before, 0)


def test_there_is_no_hidden_pool():
    """Processes that a run starts end with it: the next run has new ones."""
    seen = [set(run_parallel(far.pid_of, range(20), executor="processes").values()) for _ in range(2)]
    assert not seen[0] & seen[1]
    assert os.getpid() not in seen[0] | seen[1]


def test_executor_keeps_its_workers_warm():
    """A ProcessExecutor of the caller's own keeps its workers from run to run."""
    with ProcessExecutor(1) as executor:
        seen = [set(run_parallel(far.pid_of, range(20), executor=executor).values()) for _ in range(3)]
    assert seen[0] == seen[1] == seen[2]


def test_abandoned_thread_ends_with_its_task():
    """An abandoned thread is the only thing that may be left, and it ends as soon as its task returns."""
    gate, before = threading.Event(), leaks.look()
    run_parallel(lambda item: gate.wait(), [0], timeout=0.05)
    assert 1 == len(leaks.leaks(before, leaks.look(), 0))
    gate.set()
    assert [] == leaks.wait_until_gone(before, 0)


# Many runs in one program, looked at from outside

MANY = """
import sys
import acts, remote_tasks as far
from parallelkit import run_parallel, iter_parallel
path = sys.argv[1]

def runs(count):
    for number in range(count):
        results = run_parallel(far.give_back, range(20), max_workers=4)
        assert len(results.successes) == 20
        assert len(list(iter_parallel(far.give_back, range(20), max_workers=4))) == 20
        if number % 20 == 0:
            results = run_parallel(far.give_back, range(20), executor="processes", max_workers=2)
            assert len(results.successes) == 20
            run_parallel(far.leave, [3], executor="processes", max_workers=2)

runs(40)
hundreds = 0
acts.note(path + "done")
while acts.wait_for_lines(path + "go", hundreds + 1, patience=1000)[-1][1] != "home":
    runs(100)
    hundreds += 1
    acts.note(path + "done")
"""


def resident(program):
    with open(f"/proc/{program.pid}/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6


class Marathon:
    """A program that makes a hundred runs each time it is told to."""

    def __init__(self, path):
        self.path = str(path / "many-")
        self.program = Program(["-", self.path], script=MANY)
        acts.wait_for_lines(self.path + "done", 1, patience=50)
        self.before, self.memory = look_at(self.program), resident(self.program)

    def run(self):
        done = len(acts.lines(self.path + "done"))
        acts.note(self.path + "go")
        acts.wait_for_lines(self.path + "done", done + 1, patience=50)

    def look(self):
        """A snapshot of the program, without shared memory, which other programs use, too."""
        return look_at(self.program)._replace(shared_memory=self.before.shared_memory)

    def end(self):
        acts.note(self.path + "go", "home")
        try:
            assert 0 == self.program.wait(20).code, self.program.err
        finally:
            self.program.end()


@pytest.fixture(scope="module")
def marathon(tmp_path_factory):
    started = Marathon(tmp_path_factory.mktemp("marathon"))
    yield started
    started.end()


@pytest.mark.parametrize("hundred", [1, *rarely(*range(2, 11))])
def test_many_runs_leave_nothing(hundred, marathon):
    """After each hundred runs a program has what it had before the first, and at most 5 MB more memory.

    A thousand runs in one test took up to 37 s: on a busy machine, longer than pytest allows before it assumes a hang.
    """
    marathon.run()
    # A joined thread may exist a moment longer: Python reports its end before the system does.
    assert marathon.before == soon(marathon.look, marathon.before)
    assert resident(marathon.program) < marathon.memory + 5


def test_nothing_listens():
    """Neither the program nor its workers has a socket to which another process could connect."""
    script = """
import os
from parallelkit import run_parallel
def sockets(item):
    inodes = {os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
              if os.path.islink(f"/proc/self/fd/{name}")}
    found = []
    for kind in ("tcp", "tcp6", "udp", "udp6", "unix"):
        for line in open(f"/proc/self/net/{kind}").read().splitlines()[1:]:
            fields = line.split()
            inode = fields[6] if kind == "unix" else fields[9]
            listens = fields[3] == "00010000" if kind == "unix" else True
            if listens and f"socket:[{inode}]" in inodes:
                found.append((kind, line))
    return found
here = run_parallel(lambda outcome: None, [1], executor="processes", then=lambda outcome: print(sockets(0)))
print(run_parallel(sockets, [1, 2], executor="processes").values())
"""
    finished = run_script(script)
    assert ("[]\n[[], []]\n", "") == (finished.out, finished.err)


def test_environment_of_a_worker_is_the_callers():
    """A worker's environment is its parent's, plus the caps of threads and processes of numerical libraries."""
    (environ,) = run_parallel(lambda item: dict(os.environ), [0], executor="processes").values()
    more = {name for name in environ if name not in os.environ}
    assert more <= set(THREADS)
    assert {name: environ.get(name) for name in os.environ} == dict(os.environ)
    assert MARK not in environ


def test_channels_are_the_owners_alone():
    """Only the owner can read or write the rings, blocks, files of large results and pipes."""
    seen = []
    large = bytes(3_000_000)
    results = run_parallel(
        acts.modes, [large] * 4, executor="processes", then=lambda outcome: seen.append(acts.modes(0)[1])
    )
    far = [found for _, found in results.values()]
    assert all(any("parallelkit-ring" in name for name in found) for found in far)
    for found in [*far, *seen]:
        assert set(found.values()) == {0}, found


def test_a_journal_is_the_owners_alone(tmp_path):
    """Only the owner can access a journal and its auxiliary files while it is written, whatever the umask."""
    before = os.umask(0)
    seen = {}

    def look(outcome):
        seen.update((path.name, path.stat().st_mode & 0o077) for path in tmp_path.iterdir())

    try:
        path = tmp_path / "journal"
        run_parallel(abs, range(3), key=abs, checkpoint=path, then=look)
    finally:
        os.umask(before)
    assert "journal" in seen
    assert set(seen.values()) == {0}, seen
