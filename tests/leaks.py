"""A pytest plugin that fails every test that leaks a thread, a process, a descriptor or a shared-memory file.

conftest.py loads it. On systems without /proc it looks only at threads.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from multiprocessing import active_children, resource_tracker
from pathlib import Path
from typing import NamedTuple

import pytest
from tqdm import tqdm

GRACE = 3.0
"""Seconds that an ending thread or process may take, even on a busy machine."""

LONG_GRACE = 10.0
"""The same for shared memory of unknown origin: other programs, too, take time to clean up on a busy machine."""

ON_LINUX = sys.platform == "linux"
PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(scope="session", autouse=True)
def _visible_orphans() -> None:
    """Make a process whose parent dies our child, not init's, so that it cannot hide."""
    become_subreaper()
    start_what_stays()


def start_what_stays() -> None:
    """Start now what others start when they first need it, and what stays until the program ends."""
    resource_tracker.ensure_running()  # for the first semaphore or shared memory
    tqdm.get_lock()  # a semaphore, for the first bar: since Python 3.14 it has a name


def become_subreaper() -> None:
    """Make this process the new parent of every descendant whose own parent dies."""
    if ON_LINUX:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> None:
    """Exempt everything loaded so far from garbage collection: hundreds of collections would take 0.5 s each."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest, _visible_orphans: None) -> Iterator[None]:
    """Compare what exists after a test with what existed before it."""
    marker = request.node.get_closest_marker("abandons")
    abandoned = marker.args[0] if marker else 0
    before = look()
    yield
    if left := wait_until_gone(before, abandoned):
        pytest.fail("left behind by this test:\n" + "\n".join(left), pytrace=False)


def may_be_others(left: list[str]) -> bool:
    """Whether all of it is shared memory that need not be ours: its creator may have been another program."""
    prefix = "  /dev/shm/"
    return all(line.startswith(prefix) and not is_surely_ours(line.removeprefix(prefix)) for line in left)


class Sight(NamedTuple):
    """A snapshot of everything that a test can leak."""

    threads: frozenset[threading.Thread | int]
    processes: frozenset[int]
    descriptors: Counter[str]
    shared_memory: frozenset[str]


def look() -> Sight:
    return Sight(threads(), processes(), Counter(descriptors().values()), shared_memory())


def wait_until_gone(before: Sight, abandoned: int) -> list[str]:
    """One line for each thing that is new since ``before`` and still there after the grace period."""
    began = time.monotonic()
    pause = 0.001
    while left := leaks(before, look(), abandoned):
        if time.monotonic() > began + (LONG_GRACE if may_be_others(left) else GRACE):
            break
        gc.collect()  # what only a reference cycle keeps alive is no leak
        time.sleep(pause)
        pause *= 1.5
    return left


def leaks(before: Sight, now: Sight, abandoned: int) -> list[str]:
    threads = now.threads - before.threads
    daemons = {thread for thread in threads if not isinstance(thread, threading.Thread) or thread.daemon}
    if len(daemons) <= abandoned:
        threads -= daemons
    return [
        *(describe_thread(thread) for thread in threads),
        *(describe_process(pid) for pid in now.processes - before.processes),
        *(describe_descriptor(target) for target in (now.descriptors - before.descriptors).elements()),
        *(f"  /dev/shm/{name}" for name in now.shared_memory - before.shared_memory if is_ours(name)),
    ]


# Threads


def threads() -> frozenset[threading.Thread | int]:
    """All threads that run Python code; those started without ``threading`` as their ident."""
    known = {thread.ident: thread for thread in threading.enumerate()}
    return frozenset(known.get(ident, ident) for ident in sys._current_frames())


def describe_thread(thread: threading.Thread | int) -> str:
    ident = thread.ident if isinstance(thread, threading.Thread) else thread
    gc.disable()  # Python 3.11 may crash if it collects garbage while walking the stack of an ending thread
    try:
        frame = sys._current_frames().get(ident or 0)
        stack = "".join(traceback.format_stack(frame, limit=4)) if frame else ""
    finally:
        gc.enable()
    return f"  thread {thread} in\n{stack}".rstrip()


# Processes


def processes() -> frozenset[int]:
    """Every living descendant, and every zombie that an object of ours should have waited for.

    Reads the process table, which takes 0.3 ms, only if the kernel's lists of children show a change since
    then; and four times a second, to see strangers while they live.
    """
    global latest
    if latest is None or listed_descendants() != latest.found or time.monotonic() > latest.at + 0.25:
        latest = Census(time.monotonic(), descendants())
    return latest.found


class Census(NamedTuple):
    """What the process table said, and when."""

    at: float
    found: frozenset[int]


latest: Census | None = None


def listed_descendants() -> frozenset[int] | None:
    """All descendants by the kernel's lists of children, which may lack one while another ends; None without lists."""
    found: list[int] = [os.getpid()]
    for parent in found:  # which grows
        try:
            threads = os.listdir(f"/proc/{parent}/task")
            found += [child for thread in threads for child in listed_children(parent, thread)]
        except (FileNotFoundError, ProcessLookupError):
            if parent == os.getpid():
                return None
    return frozenset(found[1:])


def listed_children(pid: int, thread: str) -> list[int]:
    descriptor = os.open(f"/proc/{pid}/task/{thread}/children", os.O_RDONLY)
    try:
        return [int(child) for child in os.read(descriptor, 1 << 16).split()]
    finally:
        os.close(descriptor)


def descendants() -> frozenset[int]:
    """The same by the process table, without the zombies of orphans, which are buried; and note the strangers."""
    found: set[int] = set()
    children: dict[int, list[tuple[int, bytes]]] = {}
    for pid, parent, state in process_table() if ON_LINUX else ():
        children.setdefault(parent, []).append((pid, state))
    parents = [os.getpid()]
    while parents:
        for pid, state in children.get(parents.pop(), ()):
            if state != b"Z" or not bury_orphan(pid):
                found.add(pid)
                parents.append(pid)
    everybody = {pid for family in children.values() for pid, _ in family}
    strangers.update(everybody - found - {os.getpid()})
    return frozenset(found)


def process_table() -> Iterator[tuple[int, int, bytes]]:
    """(pid, parent's pid, state) of every process. Uses os.open and os.read, which take only 4 µs for each."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                descriptor = os.open(f"/proc/{name}/stat", os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                state, parent = os.read(descriptor, 512).rpartition(b")")[2].split()[:2]
            except ProcessLookupError:
                continue
            finally:
                os.close(descriptor)
            yield int(name), int(parent), state


def bury_orphan(pid: int) -> bool:
    """Reap a zombie that no object of ours stands for, as init would; return False if one does."""
    active_children()  # reaps the ended processes of multiprocessing
    started_here = (
        held.pid
        for held in gc.get_objects()
        if isinstance(held, subprocess.Popen) and held.returncode is None
    )
    if pid in started_here:
        return False
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # already reaped, or not our direct child: then it goes with its parent
    return True


def describe_process(pid: int) -> str:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return f"  process {pid}, gone by now"
    return f"  process {pid} that nobody waited for" if state == "Z" else f"  process {pid}: {command}"


# Descriptors


def descriptors() -> dict[int, str]:
    found: dict[int, str] = {}
    if ON_LINUX:
        for name in os.listdir("/proc/self/fd"):
            try:
                found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
            except FileNotFoundError:
                pass  # the descriptor of the listing itself
    return {number: target for number, target in found.items() if target not in LAZY}


LAZY = {"/dev/urandom"}  # without getrandom() in the kernel, Python opens it once and keeps it open


def describe_descriptor(target: str) -> str:
    numbers = [str(number) for number, its_target in descriptors().items() if its_target == target]
    return f"  descriptor {' or '.join(numbers)}: {target}"


# Shared memory


def shared_memory() -> frozenset[str]:
    return frozenset(os.listdir("/dev/shm")) if ON_LINUX else frozenset()


strangers: set[int] = set()
"""Every process seen so far that is not our descendant: shared memory that it leaves as it ends is not our leak."""
SEMAPHORE = "sem.mp-"
"""How the names of multiprocessing's semaphores begin. Whoever has one has it mapped; of those that nobody has, which a
killed program has left, no number tells whose they were. The package makes none."""
known: set[str] = set()
"""Shared-memory files that were found to belong to strangers."""


def is_ours(name: str) -> bool:
    """Whether a shared-memory file may be ours: False if it belongs to a stranger, such as another test run.

    It is a stranger's if a stranger has it mapped or its name contains a stranger's pid, now or when we
    looked before.
    """
    if name in known:
        return False
    if name.startswith(SEMAPHORE):
        return is_surely_ours(name)
    ours = processes() | {os.getpid()}
    strangers.update({pid for pid, _, _ in process_table()} - ours)
    strangers.difference_update(ours)  # pids are reused
    numbers = numbers_in(name)
    if not numbers & ours and (numbers & strangers or is_mapped_by(name, strangers)):
        known.add(name)
        return False
    return True


def is_surely_ours(name: str) -> bool:
    """Whether one of our processes has the file mapped, or has its pid in the file's name."""
    ours = processes() | {os.getpid()}
    return bool(numbers_in(name) & ours) or is_mapped_by(name, ours)


def numbers_in(name: str) -> set[int]:
    return {int(number) for number in re.findall(r"(?<![0-9a-zA-Z])\d{2,7}(?![0-9a-zA-Z])", name)}


def is_mapped_by(name: str, pids: set[int] | frozenset[int]) -> bool:
    try:
        inode = os.stat(f"/dev/shm/{name}").st_ino
    except FileNotFoundError:
        return False
    # Not by its name: who has created a semaphore has it mapped under another, which was but a draft of it.
    mapped = re.compile(rf" {inode} +/dev/shm/")
    for pid in pids:
        try:
            if mapped.search(Path(f"/proc/{pid}/maps").read_text()):
                return True
        except OSError:
            pass  # the process has ended, or belongs to another user
    return False
