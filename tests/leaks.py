"""Fails every test that leaves something behind: a thread, a process, a descriptor, a shared-memory file.

A pytest plugin, loaded by conftest.py. On systems without /proc only threads are looked at.
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

GRACE = 3.0
"""Seconds that a thread or process which is on its way out may take, though others have the cpu."""

LONG_GRACE = 10.0
"""The same for shared memory of which it is not known whose it is: other programs clean up, too, on a busy machine."""

ON_LINUX = sys.platform == "linux"
PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(scope="session", autouse=True)
def _visible_orphans() -> None:
    """A process whose parent dies becomes our child, not init's, so that it cannot hide."""
    become_subreaper()
    # It starts once in a program's life, with the first semaphore or shared memory, and stays to the end.
    resource_tracker.ensure_running()


def become_subreaper() -> None:
    """Be the parent of every descendant whose own parent dies."""
    if ON_LINUX:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> None:
    """What was loaded so far is looked at no more: half a second for each of hundreds of collections."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest, _visible_orphans: None) -> Iterator[None]:
    """Compares what there is after a test with what there was before."""
    marker = request.node.get_closest_marker("abandons")
    abandoned = marker.args[0] if marker else 0
    before = look()
    yield
    if left := wait_until_gone(before, abandoned):
        pytest.fail("left behind by this test:\n" + "\n".join(left), pytrace=False)


def may_be_others(left: list[str]) -> bool:
    """Whether it is all shared memory that nobody has mapped: its maker has ended, and need not have been ours."""
    prefix = "  /dev/shm/"
    return all(line.startswith(prefix) and not is_surely_ours(line.removeprefix(prefix)) for line in left)


class Sight(NamedTuple):
    """What a process can leave behind, as it is at one moment."""

    threads: frozenset[threading.Thread | int]
    processes: frozenset[int]
    descriptors: Counter[str]
    shared_memory: frozenset[str]


def look() -> Sight:
    return Sight(threads(), processes(), Counter(descriptors().values()), shared_memory())


def wait_until_gone(before: Sight, abandoned: int) -> list[str]:
    """One line for everything that is new since ``before`` and still there after the grace time."""
    began = time.monotonic()
    pause = 0.001
    while left := leaks(before, look(), abandoned):
        if time.monotonic() > began + (LONG_GRACE if may_be_others(left) else GRACE):
            break
        gc.collect()  # what only a reference cycle holds is not lost, merely late
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
    """All that run Python code: also those that were started without ``threading``, by their ident."""
    known = {thread.ident: thread for thread in threading.enumerate()}
    return frozenset(known.get(ident, ident) for ident in sys._current_frames())


def describe_thread(thread: threading.Thread | int) -> str:
    ident = thread.ident if isinstance(thread, threading.Thread) else thread
    gc.disable()  # Python 3.11 may crash if it collects garbage while it walks the stack of a thread that ends
    try:
        frame = sys._current_frames().get(ident or 0)
        stack = "".join(traceback.format_stack(frame, limit=4)) if frame else ""
    finally:
        gc.enable()
    return f"  thread {thread} in\n{stack}".rstrip()


# Processes


def processes() -> frozenset[int]:
    """Every living descendant, and every dead child that somebody here should have waited for."""
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
    """(pid, parent's pid, state) of every process. 4 µs each, so it is read by system calls, not by files."""
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
    """A dead process that none of our objects stands for was somebody else's child: init would reap it."""
    active_children()  # reaps those of multiprocessing that ended
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
        pass  # somebody was faster, or it is not our direct child and goes with its parent
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
                pass  # the descriptor by which the folder was read
    return {number: target for number, target in found.items() if target not in LAZY}


LAZY = {
    "/dev/urandom"
}  # opened once where the kernel has no getrandom(), and kept for the interpreter's life


def describe_descriptor(target: str) -> str:
    numbers = [str(number) for number, its_target in descriptors().items() if its_target == target]
    return f"  descriptor {' or '.join(numbers)}: {target}"


# Shared memory


def shared_memory() -> frozenset[str]:
    return frozenset(os.listdir("/dev/shm")) if ON_LINUX else frozenset()


strangers: set[int] = set()
"""Every process seen so far that is no descendant of ours: what it leaves for a moment when it ends is not our leak."""
known: set[str] = set()
"""Files that were found to be theirs."""


def is_ours(name: str) -> bool:
    """False if it is a stranger's: tests of others may run here too.

    A stranger has it mapped, or has put its own number into the name; or had, when we looked before.
    """
    if name in known:
        return False
    ours = processes() | {os.getpid()}
    strangers.update({pid for pid, _, _ in process_table()} - ours)
    strangers.difference_update(ours)  # numbers are given again
    numbers = numbers_in(name)
    if not numbers & ours and (numbers & strangers or is_mapped_by(name, strangers)):
        known.add(name)
        return False
    return True


def is_surely_ours(name: str) -> bool:
    """One of us has it mapped, or has put its number into the name."""
    ours = processes() | {os.getpid()}
    return bool(numbers_in(name) & ours) or is_mapped_by(name, ours)


def numbers_in(name: str) -> set[int]:
    return {int(number) for number in re.findall(r"(?<![0-9a-zA-Z])\d{2,7}(?![0-9a-zA-Z])", name)}


def is_mapped_by(name: str, pids: set[int] | frozenset[int]) -> bool:
    for pid in pids:
        try:
            if f"/dev/shm/{name}" in Path(f"/proc/{pid}/maps").read_text():
                return True
        except OSError:
            pass  # it ended, or belongs to another user
    return False
