"""What starts ahead, while the package is still being imported, for a program's first run in processes."""

import subprocess
import sys
import textwrap

import pytest

from parallelkit._executors._process._prestart import started_ahead

PROGRAM = """
import os, subprocess, sys
from parallelkit import run_parallel
from parallelkit._executors._process import _spawn, _starter, _zygote

_starter.EXPECTED = 30.0  # seconds, for a busy machine
starts = []
start = _spawn.start

def count(fds, args, environ=None):
    starts.append("zygote" if "zygote" in args else "worker")
    return start(fds, args, environ)

_spawn.start = _zygote.start = count

def square(n):
    return n * n

def run(items, **options):
    return run_parallel(square, items, executor="processes", max_workers=2, **options).values()

def children():
    try:
        return os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None

"""


def outcome_of(program, **options):
    """What a program prints in its first run; it must end without an error."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + textwrap.dedent(program)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout.strip()


@pytest.mark.all
def test_an_error_that_takes_no_attribute_comes_through_the_first_run():
    """An error that refuses attributes comes out of a first run unchanged."""
    program = """
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Frozen(Exception):
        code: int

    def fail(number):
        raise Frozen(number)

    try:
        run_parallel(fail, [5], executor="processes", on_error="raise")
    except Frozen as error:
        print(error.code)
    """
    assert "5" == outcome_of(program)


def test_first_run_forks_its_workers():
    """In the first run, one interpreter starts and forks both workers; the next run starts its two directly."""
    program = """
    print(run(range(4)), starts, children())
    print(run(range(4)), starts)
    """
    first, second = outcome_of(program).splitlines()

    assert "[0, 1, 4, 9] ['zygote'] None" == first
    assert "[0, 1, 4, 9] ['zygote', 'worker', 'worker']" == second


def test_nothing_is_left_where_no_worker_was_wanted():
    """Nothing is left of what was started ahead, if the run has no task or is refused."""
    program = """
    try:
        run(range(4), timeout=-1)
    except ValueError as error:
        print(error, starts, children())
    """
    assert outcome_of(program).endswith("math.inf means no limit ['zygote'] None")
    assert "[] ['zygote'] None" == outcome_of("print(run([]), starts, children())")


IGNORE = """
import ctypes, os, sys
act = (ctypes.c_ulong * 4)(1)  # SIG_IGN
number = {"x86_64": 13, "aarch64": 134}[os.uname().machine]
if ctypes.CDLL(None, use_errno=True).syscall(number, 33, act, None, 8):
    raise OSError(ctypes.get_errno(), "sigaction")
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.all
def test_signals_of_the_c_library_make_no_difference():
    """Ignored signals of the C library, which it takes for itself with the first thread, do not count as changed handlers."""
    done = subprocess.run(
        [sys.executable, "-c", IGNORE, "-c", PROGRAM + "print(run(range(4)), starts)"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "[0, 1, 4, 9] ['zygote']" == done.stdout.strip()


@pytest.mark.all
@pytest.mark.parametrize(
    ("call", "result"),
    [
        ("map_reduce(square, [1, 2, 3], int.__add__, initial=0, ", "14"),
        ("first_success([Task(square, 3)], ", "9"),
    ],
)
def test_what_is_built_on_streams_starts_one_too(call, result):
    """Functions built on streams, which request the first outcome at once, also start ahead."""
    program = f"""
    from parallelkit import Task, first_success, map_reduce
    result = {call}executor="processes", max_workers=2)
    print(getattr(result, "value", result), starts, children())
    """
    assert f"{result} ['zygote'] None" == outcome_of(program)


def test_one_loads_what_the_function_needs():
    """What is started ahead imports what the script uses, if the function is the script's; ``run_parallel`` counts for nothing."""
    program = """
    loaded = []

    def count(fds, args):
        loaded.append(args[4:])
        return start(fds, args)

    _zygote.start = count
    {}
    print(loaded)
    """
    assert "[('subprocess',)]" == outcome_of(program.format("run(range(4))"))
    bare = "del subprocess\n    run(range(4))"
    assert "[()]" == outcome_of(program.format(bare))
    program = program.format("run_parallel(abs, [-1], executor='processes', max_workers=2)")
    assert "[()]" == outcome_of(program)


AST = {"ast"} if sys.version_info < (3, 14) else set()  # since then NamedTuple loads it


@pytest.mark.all
def test_it_does_not_wait_for_modules_that_load_slowly():
    """What starts ahead of the imports of a run does not load the slowest of them first."""
    code = f"import sys; sys.path[:0] = {sys.path!r}; import {started_ahead.__module__}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert started_ahead.__module__ in done.stdout.split()
    slow = {"dataclasses", "dis", "inspect", "logging", "pickle", "tokenize", "traceback", *AST}
    assert set() == slow.intersection(done.stdout.split())


@pytest.mark.all
@pytest.mark.parametrize("executor", ["threads", "processes", "inline"])
@pytest.mark.parametrize("fn", ["square", "lambda n: n * n"])
def test_a_bare_run_loads_nothing_slow(executor, fn):
    """A script that only runs a function of its own loads no module that takes long and is not needed for that."""
    code = f"""
        import sys
        sys.path[:0] = {sys.path!r}
        from parallelkit import run_parallel
        def square(n: int | None) -> list[int | None]:
            return n * n
        run_parallel({fn}, [1], executor="{executor}", retries=2, timeout=60, key=str).values()
        print(*sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", textwrap.dedent(code)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    slow = {"asyncio", "cloudpickle", "datetime", "decimal", "multiprocessing", "platform", "random", "tqdm"}
    if executor == "processes":  # elsewhere, what outcomes are made of is loaded before tasks can hinder it
        slow |= {"concurrent.futures", "dataclasses", "inspect", "logging", "traceback", *AST}
    assert set() == slow.intersection(done.stdout.split())


@pytest.mark.all
def test_other_runs_start_nothing_ahead():
    """Runs in threads start nothing ahead, nor does a stream before its first outcome is requested."""
    program = """
    from parallelkit import iter_parallel
    print(run_parallel(square, [2]).values(), starts)
    """
    assert "[4] []" == outcome_of(program)
    program = """
    from parallelkit import iter_parallel
    stream = iter_parallel(square, [2], executor="processes")
    print(len(starts), next(stream).unwrap(), starts)
    """
    assert "0 4 ['worker']" == outcome_of(program)


@pytest.mark.all
def test_late_one_is_not_waited_for():
    """If the zygote started ahead is not ready soon, the first worker starts without it, and nothing of it is left."""
    program = """
    _starter.EXPECTED = 0.1

    def hang(fds, args, environ=None):
        starts.append("zygote" if "zygote" in args else "worker")
        if starts[-1] == "zygote":
            return subprocess.Popen(["sleep", "1000"], process_group=0, pass_fds=fds)
        return start(fds, args, environ)

    _spawn.start = _zygote.start = hang
    print(run(range(4)), starts[:2], children())
    """
    assert "[0, 1, 4, 9] ['zygote', 'worker'] None" == outcome_of(program)


@pytest.mark.all
def test_refused_one_is_done_without():
    """If the system refuses the process that is started ahead, the run goes on without it."""
    program = """
    def refuse(fds, args, environ=None):
        starts.append("zygote" if "zygote" in args else "worker")
        if starts[-1] == "zygote":
            raise OSError(11, "no process")
        return start(fds, args, environ)

    _spawn.start = _zygote.start = refuse
    print(run(range(4)), starts, children())
    """
    assert "[0, 1, 4, 9] ['zygote', 'worker', 'worker'] None" == outcome_of(program)


@pytest.mark.all
def test_what_cannot_be_is_said_by_the_run():
    """Without a known interpreter nothing is started ahead, and the run raises its usual error."""
    program = """
    sys.executable = None
    try:
        run([1])
    except RuntimeError as error:
        print(str(error)[:64], starts)
    """
    assert "worker processes are fresh interpreters, but sys.executable is N []" == outcome_of(program)


@pytest.mark.all
def test_modules_of_the_program_go_before_those_of_python(tmp_path):
    """A worker imports the program's module, even if it has the name of one that was preloaded."""
    (tmp_path / "platform.py").write_text("system = python_implementation = lambda: 'CPython'\n")
    program = """
    def where(_):
        import platform
        return platform.__file__

    print(*run_parallel(where, [1], executor="processes", max_workers=2).values())
    """
    assert str(tmp_path / "platform.py") == outcome_of(program, cwd=tmp_path)


@pytest.mark.all
def test_fork_of_the_program_does_not_take_its_parents(tmp_path):
    """A child that the program forks during the import does not use its parent's zygote."""
    program = """
    from parallelkit._executors._process._prestart import started_ahead, take
    with started_ahead(square, list):
        pid = os.fork()
        if pid == 0:
            os._exit(7 if take() is None else 8)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), take() is not None)
    """
    assert "7 True" == outcome_of(program)


COLLECTOR = """
    import gc

    class Watch:
        def find_spec(self, name, path=None, target=None):
            if name in ("parallelkit._executors._processes", "parallelkit._runs._plan"):
                seen.append(gc.isenabled())

    def is_on(_):
        return gc.isenabled()

    seen = []
    sys.meta_path.insert(0, Watch())
"""


@pytest.mark.all
def test_no_garbage_is_collected_while_modules_are_imported():
    """The collector is off while a first run imports its modules, which takes a tenth less so, and on in its tasks and afterwards."""
    program = (
        COLLECTOR
        + """
    print(*run_parallel(is_on, range(2), executor="processes", max_workers=2).values(), *seen, gc.isenabled())
    """
    )
    assert "True True False False True" == outcome_of(program)


@pytest.mark.all
def test_collector_is_as_it_was_after_the_imports():
    """A first run leaves the collector off where the program has turned it off, and on where an import fails."""
    program = (
        COLLECTOR
        + """
    def fail(self, name, path=None, target=None):
        if name == "parallelkit._runs._plan":
            raise ImportError(gc.isenabled())

    Watch.find_spec, find = fail, Watch.find_spec
    try:
        run(range(2))
    except ImportError as error:
        print(error, gc.isenabled(), children())
    Watch.find_spec = find
    gc.disable()
    print(run(range(2)), gc.isenabled())
    """
    )
    assert "False True None\n[0, 1] False" == outcome_of(program)


INTERRUPTED = {
    "as it starts": """
    def interrupted(fds, *args, **options):
        process = start(fds, *args, **options)
        signal.raise_signal(signal.SIGINT)
        return process

    _spawn.start = _zygote.start = interrupted
    """,
    "as it ends": """
    def interrupted(*args, killpg=os.killpg):
        signal.raise_signal(signal.SIGINT)
        killpg(*args)

    os.killpg = interrupted
    """,
}


@pytest.mark.all
@pytest.mark.parametrize("when", INTERRUPTED)
def test_interrupt_leaves_nothing_of_it(when):
    """Ctrl-C at any point is raised, and leaves neither process nor descriptor."""
    program = f"""
    import signal
    {INTERRUPTED[when]}
    before = os.listdir("/proc/self/fd")
    try:
        run([])
    except KeyboardInterrupt:
        print(children(), os.listdir("/proc/self/fd") == before)
    """
    assert "None True" == outcome_of(program)
