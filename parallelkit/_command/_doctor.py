"""``parallelkit doctor``: what works on this machine, measured rather than assumed."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from parallelkit._command import own_version
from parallelkit._errors import TaskTimeout
from parallelkit._executors._choice import default_processes, default_threads
from parallelkit._executors._width import cgroup_quota, usable_cpus
from parallelkit._raised import describe_error
from parallelkit._report._format import count, seconds
from parallelkit._results import Results
from parallelkit._run import run_parallel
from parallelkit._system import read
from parallelkit._worker import _kernel

CORE = ("cloudpickle", "tqdm")  # as in pyproject.toml: a copy that was not installed has no metadata to ask
EXTRAS = {"requests": "http", "joblib": "joblib", "ratelimit": "ratelimit", "distributed": "dask"}
RECOGNISED = ("numpy", "pandas", "polars", "scikit-learn", "tenacity", "threadpoolctl", "ipywidgets")

LIMIT = 30.0  # seconds after which a worker that has not answered is given up
ROUNDS = 3  # measurements, of which the best is shown
SMALL_SHM = 64 << 20  # bytes; Docker's default
FEW_FILES = 256


def show_health() -> bool:
    """Print the findings; return whether everything needed works."""
    print(
        f"parallelkit {own_version()}, Python {platform.python_version()}, {platform.system()} {platform.release()}"
    )
    sound = True
    for findings in (processors, workers, packages, system):
        print(f"\n{findings.__name__}")
        for fine, text in findings():
            sound = sound and fine is not False
            print(f"  {'ok  ' if fine else 'FAIL' if fine is False else '-   '}  {text}")
    print(f"\n{'all that is needed works' if sound else 'something that is needed does not work: see FAIL'}")
    return sound


Finding = tuple[bool | None, str]
"""Whether it works, or None for information only; and the text."""


def processors() -> Iterator[Finding]:
    """How many processors may be used, and what limits them."""
    limits = [f"{count(os.cpu_count() or 1, 'cpu')} in the machine"]
    if hasattr(os, "sched_getaffinity"):
        limits.append(f"affinity {len(os.sched_getaffinity(0))}")
    quota = cgroup_quota()
    limits.append("no cgroup quota" if quota is None else f"cgroup quota {quota:g}")
    yield True, f"{usable_cpus()} usable ({', '.join(limits)})"


def workers() -> Iterator[Finding]:
    """Put each kind of worker to work."""
    yield from proven(f"threads: {default_threads()} by default", work_in_threads)
    yield from proven(f"processes: {default_processes()} by default", work_in_processes)
    yield from proven("a process that hangs is killed", kill_one)


def proven(what: str, proof: Callable[[], str]) -> Iterator[Finding]:
    """Yield one finding: what ``proof`` returns, or the error that it raises."""
    try:
        shown = proof()
        yield True, f"{what}; {shown}" if shown else what
    except Exception as error:
        yield False, f"{what}; {describe_error(error)}"


def work_in_threads() -> str:
    """Run two tasks in new threads."""

    def work() -> None:
        check_values(run_parallel(abs, [-1, -2], max_workers=2, run_timeout=LIMIT))

    return f"two of them start, work and end in {seconds(best_of(work))}"


def work_in_processes() -> str:
    """Run a task in a new process."""

    def work() -> None:
        check_values(run_parallel(abs, [-1], executor="processes", max_workers=1, run_timeout=LIMIT))

    return f"one starts, works and ends in {seconds(best_of(work))}"


def check_values(results: Results[int, int]) -> None:
    """Raise the error of a task that failed, or RuntimeError for a wrong value; no assert, which ``python -O`` drops."""
    for key in results:
        if results[key] != key + 1:
            raise RuntimeError(f"abs({-key - 1}) gave {results[key]!r}")


def kill_one() -> str:
    """Have a task killed that sleeps past its timeout."""
    limit = 0.1
    failure = run_parallel(
        time.sleep, [LIMIT], executor="processes", max_workers=1, timeout=limit, run_timeout=LIMIT
    ).failures[0]
    if not (isinstance(failure.error, TaskTimeout) and failure.error.killed):
        raise failure.error
    return f"it was gone {seconds(max(0.0, failure.duration - limit))} after its timeout"


def best_of(work: Callable[[], object]) -> float:
    """Return the shortest time of a few rounds, in seconds."""
    times = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        work()
        times.append(time.monotonic() - began)
    return min(times)


def packages() -> Iterator[Finding]:
    """The packages that the core needs, those of the extras, and others that are used if installed."""
    for name in CORE:
        found = version_of(name)
        yield found is not None, f"{name} {found or f'missing: pip install {name}'}"
    for name, extra in EXTRAS.items():
        found = version_of(name)
        missing = f"missing: pip install 'parallelkit[{extra}]'"
        yield True if found else None, f"{name} {found or missing}"
    if find_spec("_sqlite3") is None:  # a Python that pyenv compiled without its headers
        yield None, "sqlite3 missing, which a checkpoint needs: Python was built without it"
    others = [f"{name} {version_of(name) or 'none'}" for name in RECOGNISED]
    yield None, f"used if installed: {', '.join(others)}"


def version_of(name: str) -> str | None:
    """Return the version that is installed, without importing the package; None if there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "of a version that is not recorded" if find_spec(name) else None  # copied into a program, say


def system() -> Iterator[Finding]:
    """The features of the system that the process engine relies on."""
    if sys.platform == "linux":
        yield from proven("the end of a process is noticed at once (pidfd)", open_pidfd)
        yield from proven("anonymous memory for results (memfd)", open_memfd)
        yield from proven("the kernel kills workers when their parent dies (O_ASYNC)", open_lifeline)
    else:
        yield None, f"{sys.platform}: threads and coroutines should work, untested; processes need Linux"
    yield shared_memory()
    yield open_files()
    yield from ended_together()


def open_pidfd() -> str:
    """Open one, as the supervisor does."""
    os.close(_kernel.pidfd_open(os.getpid()))
    return ""


def open_memfd() -> str:
    """Make one, as the channel does."""
    os.close(_kernel.memfd_create("parallelkit-doctor"))
    return ""


def open_lifeline() -> str:
    """Set a pipe up to send a signal, as a worker does, but one that does nothing."""
    from fcntl import F_GETFL, F_SETFL, F_SETOWN, F_SETSIG, fcntl
    from signal import SIGURG

    life, lifeline = os.pipe()
    try:
        fcntl(life, F_SETSIG, SIGURG)
        fcntl(life, F_SETOWN, os.getpid())
        fcntl(life, F_SETFL, fcntl(life, F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    finally:
        os.close(life)
        os.close(lifeline)
    return ""


def shared_memory() -> Finding:
    """The room in /dev/shm, which other libraries in a task may need; our own large arrays are in anonymous memory."""
    try:
        room = os.statvfs("/dev/shm")
    except OSError:
        return None, "no /dev/shm: parallelkit needs none, but multiprocessing's shared memory does"
    free, whole = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
    note = "; small: in a container, give it more with --shm-size" if whole <= SMALL_SHM else ""
    return None if note else True, f"/dev/shm {free >> 20:,} MiB free of {whole >> 20:,}{note}"


def open_files() -> Finding:
    """How many files may be open: each worker process takes a few descriptors."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < FEW_FILES:
        return None, f"{soft} open files at most: too few for many workers; see ulimit -n (up to {hard})"
    return True, f"{'unlimited' if soft < 0 else f'{soft:,}'} open files at most"


def ended_together() -> Iterator[Finding]:
    """Whether the kernel, when memory runs out, ends the whole container, and not only a worker."""
    try:
        together = read("/sys/fs/cgroup/memory.oom.group").strip() == "1"
    except OSError:  # no cgroup of version 2, or that of the machine
        return
    if together:
        yield None, "when memory runs out, all processes of this container end together (memory.oom.group)"
