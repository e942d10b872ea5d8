"""``parallelkit doctor``: what there is to work with here, measured rather than assumed."""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from parallelkit._command import own_version
from parallelkit._errors import TaskTimeout
from parallelkit._executors._choice import default_processes, default_threads
from parallelkit._executors._width import cgroup_quota, usable_cpus
from parallelkit._lost import describe
from parallelkit._report._format import count, seconds
from parallelkit._run import run_parallel

EXTRAS = {"requests": "http", "joblib": "joblib", "ratelimit": "ratelimit", "distributed": "dask"}
RECOGNISED = ("numpy", "pandas", "polars", "scikit-learn", "tenacity", "threadpoolctl", "ipywidgets")

LIMIT = 30.0  # seconds after which a worker that does not answer is taken for one that never will
ROUNDS = 3  # of which the best is shown
SMALL_SHM = 64 << 20  # bytes, what Docker grants by default
FEW_FILES = 256


def show_health() -> bool:
    """Print the findings; whether threads and processes work."""
    print(
        f"parallelkit {own_version()}, Python {platform.python_version()}, {platform.system()} {platform.release()}"
    )
    sound = True
    for title, findings in (
        ("processors", processors),
        ("workers", workers),
        ("packages", packages),
        ("system", system),
    ):
        print(f"\n{title}")
        for fine, text in findings():
            sound = sound and fine is not False
            print(f"  {'ok  ' if fine else 'FAIL' if fine is False else '-   '}  {text}")
    print(f"\n{'all that is needed works' if sound else 'something that is needed does not work: see FAIL'}")
    return sound


Finding = tuple[bool | None, str]
"""Well, broken, or (None) only worth knowing; and what it is."""


def processors() -> Iterator[Finding]:
    """How many may be used, and what limits them."""
    limits = [f"{count(os.cpu_count() or 1, 'cpu')} in the machine"]
    if hasattr(os, "sched_getaffinity"):
        limits.append(f"affinity {len(os.sched_getaffinity(0))}")
    quota = cgroup_quota()
    limits.append("no cgroup quota" if quota is None else f"cgroup quota {quota:g}")
    yield True, f"{usable_cpus()} usable ({', '.join(limits)})"


def workers() -> Iterator[Finding]:
    """Each kind is put to work."""
    yield from proven(f"threads: {default_threads()} by default", work_in_threads)
    yield from proven(f"processes: {default_processes()} by default", work_in_processes)
    yield from proven("a process that hangs is killed", kill_one)


def proven(what: str, proof: Callable[[], str]) -> Iterator[Finding]:
    """One finding: what the proof says, or what went wrong with it."""
    try:
        shown = proof()
        yield True, f"{what}; {shown}" if shown else what
    except Exception as error:
        yield False, f"{what}; {describe(error)}"


def work_in_threads() -> str:
    """Some tasks in fresh threads."""

    def work() -> None:
        results = run_parallel(abs, [-1, -2], max_workers=2, run_timeout=LIMIT)
        assert (results[0], results[1]) == (1, 2), "a wrong value"  # a failed task raises here

    return f"two of them start, work and end in {seconds(best_of(work))}"


def work_in_processes() -> str:
    """A task in a fresh process."""

    def work() -> None:
        results = run_parallel(abs, [-1], executor="processes", max_workers=1, run_timeout=LIMIT)
        assert results[0] == 1, "a wrong value"

    return f"one starts, works and ends in {seconds(best_of(work))}"


def kill_one() -> str:
    """A task that sleeps past its timeout."""
    limit = 0.1
    failure = run_parallel(
        time.sleep, [LIMIT], executor="processes", max_workers=1, timeout=limit, run_timeout=LIMIT
    ).failures[0]
    if not (isinstance(failure.error, TaskTimeout) and failure.error.killed):
        raise failure.error
    return f"it was gone {seconds(max(0.0, failure.duration - limit))} after its timeout"


def best_of(work: Callable[[], object]) -> float:
    """The least seconds of a few rounds."""
    times = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        work()
        times.append(time.monotonic() - began)
    return min(times)


def packages() -> Iterator[Finding]:
    """What the core needs, what the extras bring, and what else is recognised."""
    for name in core():
        found = version_of(name)
        yield found is not None, f"{name} {found or f'missing: pip install {name}'}"
    for name, extra in EXTRAS.items():
        found = version_of(name)
        missing = f"missing: pip install 'parallelkit[{extra}]'"
        yield True if found else None, f"{name} {found or missing}"
    others = [f"{name} {version_of(name) or 'none'}" for name in RECOGNISED]
    yield None, f"used where they are: {', '.join(others)}"


def core() -> list[str]:
    """The packages that are needed always, as the installed package says itself."""
    needed = requires("parallelkit") or []
    return [re.split(r"[^\w.-]", one)[0] for one in needed if "extra ==" not in one]


def version_of(name: str) -> str | None:
    """The version that is installed; nothing is imported for it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def system() -> Iterator[Finding]:
    """What of this system the process engine stands on."""
    if sys.platform == "linux":
        yield from proven("the end of a process is seen at once (pidfd)", open_pidfd)
        yield from proven("memory without a name for results (memfd)", open_memfd)
        yield from proven("the kernel ends workers when their parent dies (O_ASYNC)", open_lifeline)
    else:
        yield None, f"{sys.platform}: threads and coroutines should work, untested; processes need Linux"
    yield shared_memory()
    yield open_files()


def open_pidfd() -> str:
    """As the supervisor does it."""
    os.close(os.pidfd_open(os.getpid()))
    return ""


def open_memfd() -> str:
    """As the channel does it."""
    os.close(os.memfd_create("parallelkit-doctor"))
    return ""


def open_lifeline() -> str:
    """As the worker does it, but with a signal that does nothing."""
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
    """Not where large arrays of ours go (that is memory without a name), but those of other libraries in a task."""
    try:
        room = os.statvfs("/dev/shm")
    except OSError:
        return None, "no /dev/shm: parallelkit needs none, but multiprocessing's shared memory does"
    free, whole = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
    note = "; small: in a container, give it more with --shm-size" if whole <= SMALL_SHM else ""
    return None if note else True, f"/dev/shm {free >> 20:,} MiB free of {whole >> 20:,}{note}"


def open_files() -> Finding:
    """Each worker process takes a few descriptors."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < FEW_FILES:
        return None, f"{soft} open files at most: few for many workers; see ulimit -n (up to {hard})"
    return True, f"{'unlimited' if soft < 0 else f'{soft:,}'} open files at most"
