"""What the one misbehaving task of a case does, where the others return their value.

Each deed is a function of the ``Scene``. The catalogue says on which executors each runs, and what must come of it.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import types
import warnings
from pathlib import Path
from typing import NamedTuple

import broken

BAD = 7
"""The number of the misbehaving task, low enough for others to follow it on the same worker."""


class Scene(NamedTuple):
    """Where a case runs: a folder of its own, and the pid of the process that called the run."""

    folder: str
    parent: int

    def path(self, name):
        return os.path.join(self.folder, name)


def note(scene, name, text):
    """Append a line, in one system call, so that it survives however the process ends."""
    descriptor = os.open(scene.path(name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


def work(item, scene, deed):
    """Note the execution in a file; then misbehave, or return a value that shows the process's surroundings."""
    number = item if isinstance(item, int) else BAD
    note(scene, "runs", number)
    if number == BAD and deed is not None:
        return deed(scene)
    return ordinary(number)


async def work_async(item, scene, deed):
    """``work`` as a coroutine function; ``deed`` may be one or not."""
    number = item if isinstance(item, int) else BAD
    note(scene, "runs", number)
    if number != BAD or deed is None:
        await asyncio.sleep(0)
        return ordinary(number)
    done = deed(scene)
    return await done if isinstance(done, types.CoroutineType) else done


def ordinary(number):
    return [number * 3, os.getcwd(), os.environ.get("HOME"), os.environ.get("PARALLELKIT_STRANGE")]


def hang(scene):
    broken.hang()


# Ways to raise


def raise_plainly(scene):
    raise ValueError("no")


def raise_two_arguments(scene):
    raise broken.TwoArguments(5, "no")


def raise_with_lock(scene):
    raise broken.HoldsLock("locked")


def raise_lock_as_argument(scene):
    raise ValueError("locked", threading.Lock())


def raise_with_cause(scene):
    try:
        {}["missing"]
    except KeyError as error:
        raise ValueError("caused") from error


def raise_in_circle(scene):
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


def raise_group(scene):
    raise ExceptionGroup(
        "several", [ValueError("one"), ExceptionGroup("inner", [broken.TwoArguments(2, "two")])]
    )


def raise_base_group(scene):
    raise BaseExceptionGroup("several", [KeyboardInterrupt("stop"), ValueError("one")])


def raise_no_reduce(scene):
    raise broken.NoReduce("sticks")


def raise_reduces_to_text(scene):
    raise broken.ReducesToText("sticks")


def raise_reduces_to_garbage(scene):
    raise broken.ReducesToGarbage("sticks")


def raise_breaks_on_arrival(scene):
    raise broken.BreaksOnArrival("sticks")


def raise_system_exit(scene):
    sys.exit(4)


def raise_interrupt(scene):
    raise KeyboardInterrupt("from the task")


def raise_generator_exit(scene):
    raise GeneratorExit("from the task")


def raise_own_base(scene):
    raise broken.OwnBase("base")


def raise_cancelled(scene):
    import asyncio

    raise asyncio.CancelledError("from the task")


def raise_stop_iteration(scene):
    raise StopIteration("from the task")


def raise_no_text(scene):
    raise broken.NoText("hidden")


def raise_no_note(scene):
    raise broken.NoNote("plain")


def raise_no_equality(scene):
    raise broken.NoEquality("alone")


def raise_loud_end(scene):
    raise broken.LoudEnd("leaves")


def raise_local_class(scene):
    class Local(Exception):
        pass

    raise Local("by value")


def raise_os_error(scene):
    os.stat("/nonexistent/file")


def raise_huge(scene):
    raise ValueError("x" * 20_000_000)


def raise_noted(scene):
    error = ValueError("noted")
    error.add_note("the task's own note")
    raise error


def raise_timeout(scene):
    raise TimeoutError("the task's own")


def raise_warning(scene):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.warn("careful", UserWarning, stacklevel=1)


def recurse(scene):
    return recurse(scene)


# Ways to return


def return_none(scene):
    return None


def return_error(scene):
    return ValueError("a value like any other")


def return_lambda(scene):
    return lambda: 1


def return_lock(scene):
    return threading.Lock()


def return_generator(scene):
    return (number for number in range(3))


def return_coroutine(scene):
    async def nothing():
        pass

    return nothing()


def return_breaking(scene):
    return broken.Rebuilt(broken.raise_, RuntimeError("broke on arrival"))


def return_exiting(scene):
    return broken.Rebuilt(broken.raise_, SystemExit(5))


def return_no_reduce(scene):
    return broken.Reduces(broken.raise_, RuntimeError("no reduce"))


def return_exit_in_reduce(scene):
    return broken.Reduces(broken.raise_, SystemExit(5))


def return_leaving_in_reduce(scene):
    return broken.Reduces(broken.leave, 6)


def return_deep(scene):
    return broken.nest(100_000)


def return_large(scene):
    return bytes(200_000_000)


def return_larger(scene):
    return bytes(600_000_000)


def return_mute(scene):
    return broken.Mute()


def return_loud(scene):
    return broken.LoudValue()


def return_liar(scene):
    return broken.Liar()


def return_huge_int(scene):
    return 1 << 70


# Ways to end the process


def leave_0(scene):
    os._exit(0)


def leave_3(scene):
    os._exit(3)


def abort(scene):
    os.abort()


def become_another(scene):
    os.execv("/bin/sh", ["/bin/sh", "-c", "exit 9"])


def kill_self(scene):
    os.kill(os.getpid(), signal.SIGKILL)
    hang(scene)


def terminate_self(scene):
    os.kill(os.getpid(), signal.SIGTERM)
    hang(scene)


def kill_group(scene):
    os.killpg(0, signal.SIGKILL)
    hang(scene)


def segfault(scene):
    ctypes.string_at(0)


def overflow_stack(scene):
    """Overflow the C stack, by a recursion that Python does not count."""
    value = ()
    for _ in range(400_000):
        value = (value,)
    return hash(value)


def be_killed(scene, number=signal.SIGKILL):
    """Be killed by an unrelated process."""
    killer = f"kill -{number:d} {os.getpid()}"
    subprocess.Popen(["sh", "-c", killer], start_new_session=True)
    hang(scene)


def be_killed_and_children(scene):
    child = subprocess.Popen(["sleep", "1000"])
    note(scene, "children", child.pid)
    be_killed(scene)


def log_unpicklable(scene):
    import logging

    logging.getLogger("deeds").warning("with a lock: %s", "text", extra={"lock": threading.Lock()})
    return "logged"


def log(scene):
    import logging

    logging.getLogger("deeds").error("logged by a task")
    return "logged"


def exhaust_memory(scene):
    """Allocate until the process's own limit: ends with a MemoryError or the death of the process."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (50 << 20), resource.RLIM_INFINITY))
    hoard = []
    while True:
        hoard.append(bytearray(1 << 20))


def close_own_channel_and_exit(scene):
    os.closerange(3, 1024)
    os._exit(8)


def kill_all(scene):
    """Have all workers of the run, including this one, killed at once from outside; tasks on the others die, too."""
    workers = " ".join(str(pid) for pid in children_of(scene.parent))
    subprocess.Popen(["sh", "-c", f"kill -9 {workers}"], start_new_session=True)
    hang(scene)


def children_of(parent):
    """The worker processes of a process: its children that lead a process group of their own."""
    found = []
    for name in os.listdir("/proc"):
        try:
            state = Path(f"/proc/{name}/stat").read_text() if name.isdigit() else ""
        except OSError:
            continue
        pid, group = int(name) if state else 0, state.rpartition(")")[2].split()[1:3]
        if state and [str(parent), str(pid)] == group:
            found.append(pid)
    return found


# Ways to hang


def hang_in_c(scene):
    """Hang in C with the GIL held, ignoring SIGTERM and SIGINT."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.PyDLL(None).sleep(1000)


def hang_in_loop(scene):
    while True:
        try:
            while True:
                pass
        except BaseException:  # no exception stops it
            continue


def hang_on_lock(scene):
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def sleep_for_a_while(scene):
    """Sleep longer than the timeout, but not forever: a foreign pool cannot end it."""
    time.sleep(1.2)


def hang_deaf(scene):
    """Hang with every signal blocked that can be blocked."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    broken.hang()


def stop_self(scene):
    os.kill(os.getpid(), signal.SIGSTOP)
    hang(scene)


def hang_with_child(scene):
    child = subprocess.Popen(["sleep", "1000"])
    note(scene, "children", child.pid)
    child.wait()


def hang_in_pickling(scene):
    return broken.Reduces(broken.hang)


def hang_in_finally(scene):
    try:
        raise ValueError("lost")
    finally:
        broken.hang()


# Ways to misuse the process


def close_descriptors(scene):
    os.closerange(3, 1024)
    return "closed"


def close_streams(scene):
    for stream in (sys.stdout, sys.stderr):
        stream.close()
    for number in range(3):
        os.close(number)
    return "closed"


def replace_streams(scene):
    sys.stdout = sys.stderr = None
    return "replaced"


def flood_stdout(scene):
    for _ in range(100):
        sys.stdout.write("x" * 99_999 + "\n")
    return "flooded"


def change_directory(scene):
    os.makedirs(scene.path("elsewhere"), exist_ok=True)
    os.chdir(scene.path("elsewhere"))
    os.rmdir(scene.path("elsewhere"))
    return "gone"


def change_environment(scene):
    os.environ["HOME"] = "/nowhere"
    os.environ["PARALLELKIT_STRANGE"] = "1"
    return "changed"


def change_handlers(scene):
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGCHLD,
        signal.SIGALRM,
        signal.SIGPIPE,
        signal.SIGHUP,
    ):
        signal.signal(number, signal.SIG_IGN)
    return "changed"


def change_path(scene):
    sys.path.clear()
    return "changed"


def change_modules(scene):
    """Remove modules that the worker's own code might import later."""
    for name in ("signal", "logging", "traceback", "cloudpickle", "cloudpickle.cloudpickle"):
        sys.modules.pop(name, None)
    return "changed"


def change_limits(scene):
    sys.setrecursionlimit(80)
    gc.disable()
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return "changed"


def change_session(scene):
    """Fork a child that starts a session of its own and exits."""
    if os.fork() == 0:
        os.setsid()
        os._exit(0)
    os.wait()
    return "changed"


def fork_and_leave_child(scene):
    """Fork a child that holds every inherited descriptor and would outlive its parent for long."""
    child = os.fork()
    if child == 0:
        broken.hang()
    note(scene, "children", child)
    return "forked"


def fork_and_die(scene):
    child = os.fork()
    if child == 0:
        broken.hang()
    note(scene, "children", child)
    os._exit(3)


def fork_and_return(scene):
    if os.fork() == 0:
        return "the child came back"
    os.wait()
    return "the parent came back"


def fork_and_raise(scene):
    if os.fork() == 0:
        raise ValueError("the child came back")
    os.wait()
    return "the parent came back"


def start_thread(scene):
    threading.Thread(target=broken.hang).start()
    return "started"


def start_daemon_thread(scene):
    threading.Thread(target=broken.hang, daemon=True).start()
    return "started"


def start_subprocess(scene):
    child = subprocess.Popen(["sleep", "1000"])
    note(scene, "children", child.pid)
    return "started"


def start_standard_pool(scene):
    from multiprocessing import get_context

    with get_context("fork").Pool(2) as pool:
        return sum(pool.map(abs, [-1, -2, -3]))


def exit_handler_that_hangs(scene):
    import atexit

    atexit.register(broken.hang)
    return "registered"


def raise_in_thread(scene):
    thread = threading.Thread(target=raise_plainly, args=(scene,))
    threading.excepthook = lambda *_: None
    thread.start()
    thread.join()
    return "joined"


def collect_garbage_that_raises(scene):
    loud = broken.LoudValue()
    loud.itself = loud
    sys.unraisablehook = lambda *_: None
    del loud
    gc.collect()
    return "collected"


def move_to_group_and_hang(scene):
    """Move into the caller's process group, so that a signal to the worker's own group reaches nobody."""
    os.setpgid(0, os.getpgid(scene.parent))
    hang(scene)


# Coroutines


async def sleep_long(scene):
    await asyncio.sleep(1000)


async def swallow_cancellation(scene):
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            continue


async def block_loop(scene):
    time.sleep(1.3)  # noqa: ASYNC251  # that is the fault


async def fail_in_clean_up(scene):
    try:
        await asyncio.sleep(1000)
    finally:
        raise ValueError("no clean end")


async def cancel_itself(scene):
    asyncio.current_task().cancel()
    await asyncio.sleep(1000)


async def cancel_all(scene):
    """Cancel every asyncio task of the loop, including those of other tasks of the run."""
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(1000)


async def stop_loop(scene):
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0)
    return "stopped"


async def close_loop(scene):
    asyncio.get_running_loop().close()


async def leave_tasks(scene):
    """Leave three asyncio tasks behind: one that hangs, one that fails when cancelled, one that cannot be cancelled."""
    for left in (sleep_long, fail_in_clean_up, swallow_cancellation):
        task = asyncio.ensure_future(left(scene))
        LEFT.append(task)
    return "left"


LEFT = []


async def await_nothing(scene):
    await asyncio.get_running_loop().create_future()


async def raise_later(scene):
    await asyncio.sleep(0.001)
    raise ValueError("later")


async def exit_later(scene):
    await asyncio.sleep(0.001)
    sys.exit(4)


async def return_inner(scene):
    return sleep_briefly()


async def sleep_briefly():
    await asyncio.sleep(0)


async def deadlock(scene):
    lock = asyncio.Lock()
    await lock.acquire()
    await lock.acquire()


async def raise_in_group(scene):
    async with asyncio.TaskGroup() as group:
        group.create_task(raise_later(scene))
        group.create_task(sleep_long(scene))


# The caller gets a signal as soon as the file "here" exists


def here_and_hang(scene):
    note(scene, "here", "")
    hang(scene)


async def here_and_sleep(scene):
    note(scene, "here", "")
    await asyncio.sleep(1000)


def here_deaf(scene):
    """Hang in C with the GIL held, and with a child."""
    if os.fork() == 0:
        hang(scene)
    note(scene, "here", "")
    hang_in_c(scene)


def return_here(scene):
    return broken.Rebuilt(broken.here_in, scene.parent, scene.path("here"))
