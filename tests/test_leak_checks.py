"""The checks of leaks.py themselves: planted leaks are found and named, and clean tests pass."""

import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path
from time import thread_time
from uuid import uuid4

import leaks
import pytest

CONFTEST = """
pytest_plugins = ["leaks"]

def pytest_configure():
    import leaks
    leaks.GRACE = {grace}
"""

START = """
import _thread, os, subprocess, threading, time
from multiprocessing import shared_memory

import pytest

released = threading.Event()
lifeline, end = os.pipe()  # what reads from it ends with this program
kept = []


def wait_for_release():
    released.wait(5)


def test_zero_is_clean():
    pass
"""

PLANTED = {
    "thread": (
        "threading.Thread(target=wait_for_release, name='forgotten', daemon=True).start()",
        "thread <Thread(forgotten, started daemon *)> in",
    ),
    "stack_of_a_thread": (
        "threading.Thread(target=wait_for_release, daemon=True).start()",
        "*in wait_for_release",
    ),
    "raw_thread": ("_thread.start_new_thread(wait_for_release, ()); time.sleep(0.05)", "thread * in"),
    "thread_that_keeps_the_program": (
        "threading.Timer(0.5, int).start()",
        "thread <Timer(Thread-*, started *)> in",
    ),
    "child": ("kept.append(subprocess.Popen(['cat'], stdin=lifeline))", "process *: cat"),
    "grandchild": (
        "subprocess.run(['sh', '-c', 'exec 3<&0; cat - <&3 &'], stdin=lifeline)",
        "process *: cat -",
    ),
    "unreaped_child": ("kept.append(subprocess.Popen(['true']))", "process * that nobody waited for"),
    "descriptor": ("os.open('/dev/zero', os.O_RDONLY)", "descriptor *: /dev/zero"),
    "pipe": ("os.pipe()", "descriptor *: pipe:*"),
    "shared_memory": (
        "kept.append(shared_memory.SharedMemory(name=f'planted_{os.getpid()}', create=True, size=1))",
        "/dev/shm/planted_*",
    ),
}

CLEAN = """
@pytest.mark.abandons(1)
def test_declared_abandoned_thread():
    threading.Thread(target=wait_for_release, daemon=True).start()


def test_thread_on_its_way_out():
    threading.Timer(0.02, int).start()


def test_child_on_its_way_out():
    subprocess.run(["sh", "-c", "sleep 0.02 &"])


def test_orphan_that_died():
    subprocess.run(["sh", "-c", "true & exit"])


def test_descriptor_held_by_a_cycle_only():
    class Held:
        def __del__(self):
            os.close(self.descriptor)

    held = Held()
    held.itself, held.descriptor = held, os.open("/dev/zero", os.O_RDONLY)


@pytest.fixture(scope="module")
def shared():
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    yield process
    process.communicate()


def test_what_outlives_the_test_by_intent(shared):
    assert shared.poll() is None
"""

TOO_MANY = """
@pytest.mark.abandons(1)
def test_two_abandoned_where_one_is_declared():
    for _ in range(2):
        threading.Thread(target=wait_for_release, daemon=True).start()
"""

AT_THE_END = """
def test_zz_release():
    released.set()
    for each in kept:
        if isinstance(each, shared_memory.SharedMemory):
            each.close()
            each.unlink()
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Run a test file under the checks, in a process of its own."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))

    def run(tests, grace=0.1):
        pytester.makeconftest(CONFTEST.format(grace=grace))
        pytester.makepyfile(START + tests + AT_THE_END)
        return pytester.runpytest_subprocess("-p", "no:cacheprovider")

    return run


@pytest.mark.all
def test_what_is_left_behind_fails_its_test_and_is_named(run):
    """Each kind of leak fails its own test only, with a line that says what was left."""
    tests = [f"\n\ndef test_{name}():\n    {code}\n" for name, (code, _) in PLANTED.items()]

    result = run("".join(tests))

    result.assert_outcomes(passed=len(PLANTED) + 2, errors=len(PLANTED))
    for name, (_, expected) in PLANTED.items():
        result.stdout.fnmatch_lines(
            [f"*ERROR at teardown of test_{name} *", "left behind by this test:", f"  {expected}*"]
        )


@pytest.mark.all
def test_what_cleans_up_passes(run):
    """Declared threads, threads and processes that are about to end, dead orphans and what fixtures own are no leaks."""
    result = run(CLEAN, grace=20.0)
    result.assert_outcomes(passed=CLEAN.count("def test_") + 2)


@pytest.mark.all
def test_abandoned_threads_are_counted(run):
    """A test that abandons more threads than it declares fails."""
    result = run(TOO_MANY)
    result.assert_outcomes(passed=3, errors=1)


STRANGER = """
import os, sys
from multiprocessing import shared_memory, resource_tracker
number = os.getpid() if sys.argv[1] == "named" else 0
memory = shared_memory.SharedMemory(name=f"stranger_{number}_" + sys.argv[2], create=True, size=1)
resource_tracker.unregister(memory._name, "shared_memory")
print(memory.name, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not leaks.ON_LINUX, reason="shared memory has no names elsewhere")
@pytest.mark.parametrize("named", ["named", "mapped"])
def test_what_a_stranger_leaves_is_not_ours_even_when_it_has_ended(named, monkeypatch):
    """Shared memory of another program that was seen while it lived is no leak of a test, even after that program has ended."""
    stranger = subprocess.Popen(
        [sys.executable, "-c", STRANGER, named, uuid4().hex],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    name = stranger.stdout.readline().strip()
    try:
        assert leaks.is_ours(name), "a child's"
        assert leaks.is_surely_ours(name)
        monkeypatch.setattr(leaks, "processes", frozenset)  # as if it were no child of ours
        assert not leaks.is_ours(name)
        stranger.communicate()
        assert not leaks.is_ours(name)
        leaks.known.discard(name)
        assert leaks.is_ours(name) is (named == "mapped"), "by its number it is known still"
    finally:
        (Path("/dev/shm") / name).unlink()
        leaks.strangers.discard(stranger.pid)
        leaks.known.discard(name)


@pytest.mark.skipif(not leaks.ON_LINUX, reason="shared memory has no names elsewhere")
def test_a_semaphore_is_ours_if_a_process_of_ours_has_it():
    """One that nobody has was left by a killed program: of such a one nothing tells that it was another test run."""
    semaphore = get_context("spawn").Semaphore()
    name = f"sem.{semaphore._semlock.name.removeprefix('/')}"
    assert leaks.is_ours(name)
    assert not leaks.is_ours(
        "sem.mp-of_a_killed_program"
    )  # loky's names, which ours are where it is loaded, have our pid


def test_looking_is_cheap():
    """The checks cost a test at most a few milliseconds."""
    began = thread_time()
    for _ in range(10):
        leaks.look()
    assert thread_time() - began < 10 * 0.005
