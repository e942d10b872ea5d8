"""Other systems than this one, as far as they can be had here: without what they lack, from before the package is loaded."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from parallelkit import run_parallel
from parallelkit._executors._process import _spawn
from parallelkit._executors._process._startable import check_watchable
from parallelkit._worker import _kernel

OLD = """
for name in ("pidfd_open", "memfd_create", "P_PIDFD", "MFD_CLOEXEC", "MFD_ALLOW_SEALING"):
    delattr(os, name)
for name in [name for name in vars(fcntl) if name.startswith(("F_ADD_SEALS", "F_SEAL_"))]:
    delattr(fcntl, name)
del _signal.pidfd_send_signal
"""
"""As a Python that was built with the C library and the kernel headers of an older system."""

MAC = (
    OLD
    + """
for name in ("pipe2", "sched_getaffinity", "eventfd", "eventfd_read", "eventfd_write", "waitid"):
    delattr(os, name)
for name in [name for name in vars(select) if name.startswith(("epoll", "EPOLL"))]:
    delattr(select, name)
for name in ("MSG_CMSG_CLOEXEC", "MSG_NOSIGNAL", "SOCK_CLOEXEC", "SOCK_NONBLOCK"):
    delattr(_socket, name)
del mmap.MAP_POPULATE
for name in [name for name in vars(fcntl) if name.startswith(("F_SETSIG", "F_GETSIG"))]:
    delattr(fcntl, name)
os.process_cpu_count = os.cpu_count
selectors.DefaultSelector = selectors.PollSelector
sys.platform = "darwin"
"""
)


def run_on(lacking, script, *argv, code=0):
    """Run a script, after the lines that take away what there is not; what it printed, which is that and nothing else."""
    before = "import _signal, _socket, asyncio, fcntl, mmap, os, select, selectors, subprocess, sys, time\n"
    done = subprocess.run(
        [sys.executable, "-c", before + lacking + script, *argv],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert code == done.returncode, done
    return done.stdout, done.stderr


def test_a_python_built_for_older_systems_has_worker_processes():
    """That of conda, say: its kernel has what Python has no function for. A hung task is killed, a stack read before."""
    script = """
from parallelkit import run_parallel
print(run_parallel(lambda size: b"x" * size, [1, 3_000_000], executor="processes").values() == [b"x", b"x" * 3_000_000])
print(run_parallel(len, [b"x" * 3_000_000], executor="processes").values())
for limit in (0.2, 1, 5):  # a busy machine may not have begun the task by then, or not read its stack
    failure = run_parallel(lambda: time.sleep(50), [()], star=True, executor="processes", timeout=limit).failures[0]
    if failure.stack:
        break
print(type(failure.error).__name__, failure.error.killed, "lambda" in failure.stack)
"""
    said, complaints = run_on(OLD, script)
    assert ["True", "[3000000]", "TaskTimeout True True"] == said.splitlines()
    assert "" == complaints


def test_files_are_the_same_without_a_function_of_python(monkeypatch):
    """A worker makes them, too: they are closed in programs that are started, and can be sealed."""
    monkeypatch.delattr(os, "memfd_create")
    fd = _kernel.memfd_create("test-old")
    try:
        assert not os.get_inheritable(fd)
        assert 0 == fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        fcntl.fcntl(fd, _kernel.F_ADD_SEALS, _kernel.F_SEAL_SHRINK | _kernel.F_SEAL_GROW)
        assert fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW == fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    finally:
        os.close(fd)
    assert os.P_PIDFD == _kernel.P_PIDFD


def test_what_the_kernel_says_is_raised(monkeypatch):
    """As by Python's own function."""
    monkeypatch.delattr(os, "pidfd_open")
    with pytest.raises(OSError, match="Invalid argument"):
        _kernel.pidfd_open(-1)


@pytest.mark.parametrize(("platform", "ctypes"), [("linux", None), ("darwin", object())])
def test_where_nothing_can_be_called_processes_are_refused(monkeypatch, platform, ctypes):
    """A Python may lack ctypes; and on another system the number of a call means something else."""
    monkeypatch.delattr(os, "pidfd_open")
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setitem(sys.modules, "ctypes", ctypes)
    _kernel._function.cache_clear()
    with pytest.raises(OSError, match="not implemented") as refused:
        _kernel.pidfd_open(os.getpid())
    assert errno.ENOSYS == refused.value.errno
    with pytest.raises(NotImplementedError, match=r"need Linux 5\.4 or newer.*; use executor='threads' here"):
        run_parallel(abs, [-1], executor="processes")


WITHOUT = {
    "ctypes": "sys.modules['ctypes'] = None",
    "glibc": "os.confstr = lambda name: None",
    "a known processor": "os.uname = lambda real=os.uname(): os.uname_result((*real[:4], 'riscv64'))",
}


@pytest.mark.parametrize("without", WITHOUT)
@pytest.mark.all
def test_workers_are_started_one_by_one_where_none_can_be_forked(tmp_path, without):
    """Where the process that forks workers lacks what it needs, it ends, and nothing is said of it."""
    entry = tmp_path / "entry.py"
    entry.write_text(
        f"import os, runpy, sys\n{WITHOUT[without]}\nrunpy.run_path({_spawn.ENTRY!r}, run_name='__main__')"
    )
    script = f"""
from parallelkit._executors._process import _spawn
from parallelkit._executors._process._startable import check_watchable
_spawn.ENTRY = {str(entry)!r}
from parallelkit import run_parallel
def parent(_):
    time.sleep(0.3)
    return os.getppid()
print({{os.getpid()}} == set(run_parallel(parent, range(6), executor="processes", max_workers=3).values()))
"""
    assert ("True\n", "") == run_on("", script)


def test_threads_need_nothing_that_only_linux_has(tmp_path):
    """Nor do coroutines, streams, limits, checkpoints and reports. Processes are refused at the call."""
    script = """
import parallelkit
from parallelkit import *
print(run_parallel(abs, [-1, -2], limits=[RateLimit(9, per=1), ConcurrencyLimit(1)], timeout=9).values())
async def wait(item):
    await asyncio.sleep(0.001)
    return item
results = run_parallel(wait, [3, 4])
print(results.values(), "4" in results._repr_html_(), "2 succeeded" in results.report())
print(sorted(outcome.value for outcome in iter_parallel(abs, [-5, -6])))
for _ in range(2):
    print(run_parallel(abs, [-7], key=str, checkpoint=sys.argv[1]).outcomes["-7"].attempts)
with ThreadExecutor(1) as executor:
    print(executor.submit(abs, -8).result())
for refuse in (lambda: run_parallel(abs, [-1], executor="processes"), lambda: ProcessExecutor(1)):
    try:
        refuse()
    except NotImplementedError as error:
        print(error)
"""
    said, complaints = run_on(MAC, script, str(tmp_path / "run.journal"))
    refusal = (
        "worker processes need Linux 5.4 or newer; use executor='threads' here, "
        "or for CPU-bound work executor=ProcessPoolExecutor() of concurrent.futures"
    )
    assert ["[1, 2]", "[3, 4] True True", "[5, 6]", "1", "0", "8", refusal, refusal] == said.splitlines()
    assert "" == complaints


@pytest.mark.parametrize(("name", "value"), [("byteorder", "big"), ("maxsize", (1 << 31) - 1)])
def test_other_processors_are_refused(name, value, monkeypatch):
    """Results would be misread on a big-endian processor, and torn on one that stores eight bytes in two steps."""
    monkeypatch.setattr(sys, name, value)
    with pytest.raises(
        NotImplementedError, match=r"Linux 5\.4 or newer on a 64-bit little-endian processor, and this is"
    ):
        check_watchable()


def test_a_standard_pool_does_cpu_bound_work_elsewhere():
    """Where there are no worker processes of ours, a pool of the standard library's can be given."""
    script = """
from concurrent.futures import ProcessPoolExecutor
from parallelkit import run_parallel
with ProcessPoolExecutor(2) as pool:
    results = run_parallel(divmod, [(7, 2), (7, 0)], star=True, executor=pool)
    print(results.outcomes[0].value, type(results.failures[1].error).__name__)
"""
    said, complaints = run_on(MAC, script)
    assert "(3, 1) ZeroDivisionError\n" == said
    assert "" == complaints


@pytest.mark.all
def test_the_command_needs_nothing_that_only_linux_has():
    """Where there are no processes, asking for them is wrong usage, without a traceback."""
    script = "from parallelkit._cli import main; sys.exit(main(sys.argv[1:]))"
    given = ["run", "builtins:len", __file__, "--quiet"]
    said, complaints = run_on(MAC, script, *given)
    assert said.startswith('{"key": 0, "ok": true')
    assert "" == complaints
    said, complaints = run_on(MAC, script, *given, "--executor", "processes", code=2)
    assert "" == said
    assert "error: worker processes need Linux 5.4 or newer; use executor='threads' here" in complaints
    assert "Traceback" not in complaints
    said, complaints = run_on(MAC, script, "doctor", code=1)
    assert "darwin: threads and coroutines should work, untested; processes need Linux" in said
    assert "" == complaints
