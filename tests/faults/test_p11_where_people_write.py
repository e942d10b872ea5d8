"""Promise 11: it works where people write."""

import asyncio
import itertools
import os
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from textwrap import dedent

import pytest
import remote_tasks as far
from outside import program, rarely, run_script, skip_if_no_threads, soon

from parallelkit import ProcessExecutor, TaskTimeout, ThreadExecutor, iter_parallel, run_parallel

BOTH = pytest.mark.parametrize("executor", ["threads", "processes"])

# A user's own file: no main guard, and everything that a module may contain.
MODULE = """
import dataclasses, enum, functools, sys, typing
from parallelkit import run_parallel, iter_parallel

print("begins", __name__)
FACTOR = 10

class Mistake(Exception):
    def __init__(self, code, reason):
        super().__init__(f"{reason} ({code})")
        self.code = code

@dataclasses.dataclass
class Point:
    x: int
    y: int = 0
    count = 0
    def moved(self, by):
        return Point(self.x + by, self.y)

class Colour(enum.Enum):
    RED = 1
    BLUE = 2

T = typing.TypeVar("T")

class Box(typing.Generic[T]):
    def __init__(self, value):
        self.value = value

@functools.cache
def cached(number):
    return number * FACTOR

def scaled(number):
    return number * FACTOR

def wrong(number):
    raise Mistake(number, "no")

def make_adder(more):
    def add(number):
        return number + more
    return add

class Counter:
    def __init__(self, start):
        self.start = start
    def __call__(self, number):
        return self.start + number
    def method(self, number):
        return self.start - number
    @classmethod
    def made(cls, number):
        return cls(number)
    @staticmethod
    def static(number):
        return -number

for executor in ("processes", "threads"):
    def run(fn, items):
        return run_parallel(fn, items, executor=executor, max_workers=1)
    assert run(scaled, [1, 2]).values() == [10, 20]
    assert run(lambda number: number + FACTOR, [1, 2]).values() == [11, 12]
    assert run(make_adder(5), [1, 2]).values() == [6, 7]
    assert run(Counter(3), [1, 2]).values() == [4, 5]
    assert run(Counter(3).method, [1, 2]).values() == [2, 1]
    assert run(Counter.static, [1, 2]).values() == [-1, -2]
    assert run(cached, [1, 2]).values() == [10, 20]
    assert run(lambda number: Box[T](number).value, [1]).values() == [1]
    made = run(Counter.made, [1]).values()[0]
    assert type(made) is Counter and isinstance(made, Counter) and made.start == 1
    points = run(lambda point: point.moved(1), [Point(1), Point(2, 3)]).values()
    assert points == [Point(2), Point(3, 3)] and all(type(point) is Point for point in points)
    assert run(Point, [7]).values() == [Point(7)]
    assert run(lambda colour: Colour(3 - colour.value), [Colour.RED]).values()[0] is Colour.BLUE
    failure = run(wrong, [5]).failures[0]
    try:
        raise failure.error
    except Mistake as error:
        assert error.code == 5 and str(error) == "no (5)"
    assert "in wrong" in failure.traceback
    assert [outcome.value for outcome in iter_parallel(scaled, [4], executor=executor)] == [40]
    Point.count += 1
    assert Point.count == 1 + ("processes", "threads").index(executor)  # the class was not recreated
print("ends")
"""


# Scripts


def test_script_without_a_main_guard(tmp_path):
    """A script without a main guard runs once, in the main process: no worker runs it."""
    script = tmp_path / "script.py"
    script.write_text(MODULE)
    finished = run_script("", str(script))
    assert ("begins __main__\nends\n", "", 0) == (finished.out, finished.err, finished.code)


SPAWNS = """
if __name__ == "__main__":
    import multiprocessing

    process = multiprocessing.get_context("spawn").Process(target=print, args=("spawned",))
    process.start()
    process.join()
"""


@pytest.mark.all
def test_process_that_multiprocessing_has_spawned(tmp_path):
    """A spawned process imports the script as ``__mp_main__``, which no worker can import: its functions and classes are sent by value."""
    script = tmp_path / "script.py"
    script.write_text(MODULE + SPAWNS)
    finished = run_script("", str(script))
    begun = "".join(f"begins {name}\nends\n" for name in ("__main__", "__mp_main__"))
    assert (f"{begun}spawned\n", "", 0) == (finished.out, finished.err, finished.code)


@pytest.mark.all
def test_script_on_standard_input():
    """``python - < script`` works, although there is no file."""
    finished = run_script(MODULE)
    assert ("begins __main__\nends\n", "", 0) == (finished.out, finished.err, finished.code)


@pytest.mark.all
def test_command_line():
    """``python -c`` works."""
    finished = run_script("", "-c", MODULE)
    assert ("begins __main__\nends\n", "", 0) == (finished.out, finished.err, finished.code)


@pytest.mark.all
def test_module_run_by_name(tmp_path, monkeypatch):
    """``python -m package.module`` works, with relative imports."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "near.py").write_text("def near(number): return number + 1\n")
    (package / "module.py").write_text(
        MODULE + "\nfrom .near import near\n"
        "assert run_parallel(near, [1], executor='processes').values() == [2]\n"
        "assert run_parallel(lambda n: near(n), [1], executor='processes').values() == [2]\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(
        "outside.PATH", os.pathsep.join([str(tmp_path), *__import__("outside").PATH.split(":")])
    )
    finished = run_script("", "-m", "package.module")
    assert ("begins __main__\nends\n", "", 0) == (finished.out, finished.err, finished.code)


def test_notebook():
    """In a notebook, whose ``__main__`` has no file, tasks use the latest definition of each function, class and global."""
    script = f"""
import types, sys, linecache
main = types.ModuleType("__main__")
sys.modules["__main__"] = main
def cell(source, number=[0]):
    number[0] += 1
    name = f"<ipython-input-{{number[0]}}>"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    exec(compile(source, name, "exec"), main.__dict__)
cell({MODULE!r})
cell("def scaled(number): return number * 2")
cell("print(run_parallel(scaled, [1, 2], executor='processes').values())")
cell("FACTOR = 3\\ndef scaled(number): return number * FACTOR")
cell("print(run_parallel(scaled, [1, 2], executor='processes').values())")
cell("class Point: pass")
cell("print(type(run_parallel(lambda n: Point(), [1], executor='processes')[0]) is Point)")
cell("import traceback")
cell("traceback.print_exception(run_parallel(wrong, [1], executor='processes').failures[0].error, file=sys.stdout)")
"""
    finished = run_script(script)
    assert "" == finished.err
    assert "begins __main__\nends\n[2, 4]\n[3, 6]\nTrue\n" in finished.out
    assert 'raise Mistake(number, "no")' in finished.out


def test_interactive_interpreter():
    """Functions typed line by line into ``python -i`` work as tasks."""
    lines = dedent(
        """
        from parallelkit import run_parallel
        def double(number): return number * 2

        run_parallel(double, [1, 2], executor="processes").values()
        run_parallel(lambda n: double(n) + 1, [1, 2], executor="processes").values()
        """
    )
    finished = run_script(lines, "-i", "-q", "-")
    assert 0 == finished.code
    assert ["[2, 4]", "[3, 5]"] == finished.out.split("\n")[:2]


@pytest.mark.parametrize(
    "flags",
    [["-O"], ["-I"], ["-W", "error", "-X", "warn_default_encoding"], ["-X", "dev"], ["-u"], ["-S"]],
    ids=" ".join,
)
@pytest.mark.all
def test_flags_of_the_interpreter(flags):
    """Workers get the interpreter flags of their parent, and work with all of them."""
    script = """
import sys
sys.path[:0] = PATH
from parallelkit import run_parallel
def flags(item):
    return sys.flags.optimize, sys.flags.dev_mode, sys.flags.isolated, [type(f).__name__ for f in ()]
there = run_parallel(flags, [1], executor="processes")[0]
print(there[:2] == flags(1)[:2])
"""
    import parallelkit

    places = [os.path.dirname(os.path.dirname(module.__file__)) for module in (parallelkit, pytest)]
    finished = run_script(script.replace("PATH", repr(places)), *flags, "-")
    assert ("True\n", 0) == (finished.out, finished.code), finished.err


def test_streams_that_are_closed():
    """A daemon, without stdin, stdout and stderr, can run tasks."""
    script = """
import os, sys
for number in range(3):
    os.close(number)
sys.stdin = sys.stdout = sys.stderr = None
import acts
from parallelkit import run_parallel
values = run_parallel(lambda n: print(n) or n, [1, 2], executor="processes").values()
values += run_parallel(lambda n: n, [3], executor="threads").values()
acts.note(sys.argv[1], values)
"""
    with program("-", os.devnull) as unused:
        unused.wait(20)
    path = f"/tmp/parallelkit-{os.getpid()}-streams"
    try:
        run_script(script, "-", path)
        with open(path) as file:
            assert "[1, 2, 3]" == file.read().partition(" ")[2].strip()
    finally:
        os.unlink(path)


def test_tasks_that_ask_at_the_terminal():
    """What a task, or a program that it starts, reads at the terminal is an error: the system does not stop the worker for it."""
    script = """
import os, pty, signal, subprocess, sys
if os.fork():
    sys.exit(os.wait()[1] != 0)
os.setsid()
from parallelkit import run_parallel
_, terminal = pty.openpty()
os.open(os.ttyname(terminal), os.O_RDWR)  # now that of this session
def ask(_):
    return open("/dev/tty").readline()
def have_asked(_):
    subprocess.run(["sh", "-c", "stty -echo < /dev/tty; cat /dev/tty"], check=True, stderr=subprocess.DEVNULL)
def ask_again(_):  # as ssh does after each of these signals
    for number in (signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, lambda *_: None)
    ask(None)
for task in (ask, have_asked, ask_again):
    print(type(run_parallel(task, [1], executor="processes", timeout=10).failures[0].error).__name__)
"""
    finished = run_script(script)
    assert ("OSError\nCalledProcessError\nOSError\n", 0) == (finished.out, finished.code), finished.err


@pytest.mark.all
def test_directory_that_is_gone(tmp_path):
    """Runs work if the working directory of the program has been deleted."""
    script = f"""
import os
os.makedirs({str(tmp_path / "gone")!r}); os.chdir({str(tmp_path / "gone")!r}); os.rmdir({str(tmp_path / "gone")!r})
from parallelkit import run_parallel
print(run_parallel(lambda n: n + 1, [1, 2], executor="processes").values())
"""
    finished = run_script(script, "-P", "-")  # without it 3.13.0 itself cannot `import socket` there
    assert ("[2, 3]\n", 0) == (finished.out, finished.code), finished.err


def test_initializer_of_a_script():
    """Tasks see the globals that an initializer of the script assigns, instead of the script's own values."""
    script = """
from functools import partial
from parallelkit import ProcessExecutor, run_parallel
model = None
def load(size):
    global model, new
    model, new = size, [size]
def use(item):
    return model * item, new
for initializer in (load, partial(load)):
    with ProcessExecutor(2, initializer=initializer, initargs=(10,)) as executor:
        print(run_parallel(use, [1, 2], executor=executor).values(), executor.submit(use, 3).result())
        print(run_parallel(lambda item: use(item)[0] + use(item)[0], [1], executor=executor).values(), model)
"""
    expected = "[(10, [10]), (20, [10])] (30, [10])\n[20] None\n"
    assert 2 * expected == run_script(script).out


@pytest.mark.all
def test_cached_functions_of_a_script():
    """Cached functions of a script work as tasks: recursive ones, methods, local ones. Each worker has its own cache."""
    script = """
import functools, re
from parallelkit import run_parallel
@functools.cache
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)
class Shop:
    @functools.lru_cache(maxsize=2, typed=True)
    def price(self, n):
        return 2 * n
def make():
    return functools.cache(lambda n: n + 1)
far = lambda fn, *args: run_parallel({0: functools.partial(fn, *args)}, executor="processes")[0]
print(far(fib, 80), far(lambda: fib(50)), far(Shop().price, 4), far(make(), 1), fib.cache_info().misses)
print(far(lambda: Shop.price.cache_parameters()), far(lambda: (fib(9), fib.cache_info().currsize)))
back = far(lambda: fib)
print(back(10), back.__name__, far(lambda: re._compile) is re._compile)
"""
    finished = run_script(script)
    assert (
        "23416728348467685 12586269025 8 2 0\n{'maxsize': 2, 'typed': True} (34, 10)\n55 fib True\n"
        == finished.out
    ), finished.err


# Callers


@BOTH
def test_threads_that_are_not_the_main_one(executor):
    """Eight threads can each run tasks at the same time, none of them the main thread."""
    found = {}

    def call(name):
        found[name] = run_parallel(
            far.add, range(30), args=(name,), executor=executor, max_workers=2
        ).values()

    callers = [threading.Thread(target=call, args=(name,)) for name in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert {name: [item + name for item in range(30)] for name in range(8)} == found


@pytest.mark.parametrize("make", [ThreadExecutor, ProcessExecutor])
def test_runs_at_once_on_one_executor(make):
    """Two runs, a stream and futures share an executor at the same time; none affects another, even if tasks fail or die."""
    found = {}

    def run(name):
        fault = far.leave if make is ProcessExecutor else far.fail
        table = {5: (fault, 3 if fault is far.leave else ValueError(name))}
        results = run_parallel(partial(far.on, table), range(40), executor=executor)
        found[name] = (list(results.failures), sorted(results.successes.values()))

    def stream():
        found["stream"] = sorted(
            one.value for one in iter_parallel(far.give_back, range(40), executor=executor)
        )

    def futures():
        found["futures"] = [future.result() for future in [executor.submit(far.add, n, 1) for n in range(40)]]

    with make(2) as executor:
        callers = [threading.Thread(target=run, args=(name,)) for name in "ab"]
        callers += [threading.Thread(target=stream), threading.Thread(target=futures)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(30)

    rest = [n for n in range(40) if n != 5]
    assert {"a": ([5], rest), "b": ([5], rest), "stream": [*range(40)], "futures": [*range(1, 41)]} == found


@BOTH
def test_inside_a_running_event_loop(executor):
    """Runs work in the thread of a running event loop, which they block, and by ``asyncio.to_thread``; executors by ``run_in_executor``."""

    async def main():
        here = run_parallel(far.give_back, range(5), executor=executor).values()
        streamed = [one.value for one in iter_parallel(far.give_back, range(5), executor=executor)]
        there = await asyncio.to_thread(run_parallel, far.give_back, range(5), executor=executor)
        future = await asyncio.get_running_loop().run_in_executor(own, far.give_back, 7)
        return here, sorted(streamed), there.values(), future

    with ThreadExecutor(2) if executor == "threads" else ProcessExecutor(2) as own:
        assert ([*range(5)], [*range(5)], [*range(5)], 7) == asyncio.run(main())


# Nested


def nest(levels):
    """Nest a run of two tasks for each level; return the number of innermost calls."""
    from parallelkit import run_parallel

    if not levels:
        return 1
    results = run_parallel(nest, [levels[1:]] * 2, executor=levels[0], max_workers=2)
    return sum(results.values())


DEPTHS = [
    *itertools.product(["threads", "processes"], repeat=2),
    *rarely(
        *[
            pair
            for pair in itertools.product(["threads", "processes", "inline"], repeat=2)
            if "inline" in pair
        ]
    ),
    *rarely(("threads", "processes", "threads"), ("processes", "threads", "processes")),
]


@pytest.mark.parametrize("levels", DEPTHS, ids=" in ".join)
def test_nested(levels):
    """Runs can be nested in every combination of executors: every innermost task runs, and nothing deadlocks."""
    nest.__module__ = "__main__"  # so that it is sent by value, as a function of a script is
    try:
        assert 2 ** len(levels) == nest(levels)
    finally:
        nest.__module__ = __name__


def test_nested_on_one_executor():
    """Every task of a run waits for a run on the same executor of ours, and there is no deadlock."""
    with ThreadExecutor(2) as executor:

        def outer(item):
            return sum(run_parallel(abs, range(item), executor=executor).values())

        assert [0, 0, 1, 3, 6, 10] == run_parallel(outer, range(6), executor=executor, timeout=20).values()


def test_nested_on_a_foreign_pool():
    """A foreign pool lends no slot: a run on it, inside a task that holds its last thread, ends only by a timeout."""
    with ThreadPoolExecutor(1) as pool:

        def outer(item):
            return run_parallel(abs, [item], executor=pool, timeout=0.1).failures

        (failures,) = run_parallel(outer, [1], executor=pool, timeout=20).values()
    assert isinstance(failures[0].error, TaskTimeout)


def test_nested_deeply_on_one_executor():
    """Four levels of nested runs on one executor do not deadlock."""

    def down(level):
        if not level:
            return 1
        return sum(run_parallel(down, [level - 1] * 2, executor=executor).values())

    with ThreadExecutor(2) as executor:
        assert 16 == run_parallel(down, [4], executor=executor, timeout=30)[0]


def test_nested_futures_on_one_executor():
    """A call may wait for another call on its own executor, even with one worker, where the standard pool deadlocks."""
    with ThreadExecutor(1) as executor:
        outer = [executor.submit(lambda n: executor.submit(abs, -n).result(9), n) for n in range(3)]
        assert [0, 1, 2] == [future.result(20) for future in outer]


@pytest.mark.parametrize("outer", [ThreadPoolExecutor, ProcessPoolExecutor])
@BOTH
def test_inside_a_standard_pool(outer, executor):
    """A task of a standard pool can run tasks."""
    extra = {"mp_context": get_context("spawn")} if outer is ProcessPoolExecutor else {}
    with outer(1, **extra) as pool:
        future = pool.submit(run_parallel, far.give_back, range(5), executor=executor, max_workers=2)
        assert [*range(5)] == future.result(60).values()


def test_inside_a_daemonic_process():
    """A daemonic multiprocessing worker may not start multiprocessing's processes, but it may start ours."""
    with get_context("fork").Pool(1) as pool:
        assert [0, 1, 2] == pool.apply(values_of, ("processes",))
        pool.close()
        pool.join()


def values_of(executor):
    return run_parallel(far.give_back, range(3), executor=executor, max_workers=2).values()


@BOTH
@pytest.mark.parametrize(
    "state", [*rarely("untouched", "used before"), "while a stream is open", "while an executor is open"]
)
def test_from_a_forked_child_of_the_parent(state, executor):
    """A forked child can run tasks, and dropping what it inherited does not affect its parent."""
    keep = None
    if state == "used before":
        values_of(executor)
    elif state == "while a stream is open":
        keep = iter_parallel(far.give_back, range(500), executor=executor, max_workers=2)
        next(keep)
    elif state == "while an executor is open":
        keep = ThreadExecutor(2) if executor == "threads" else ProcessExecutor(2)
        assert 1 == keep.submit(abs, -1).result()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, repr(values_of(executor)).encode())
            del keep
        finally:
            os._exit(0)
    os.close(write)
    with open(read) as file:
        assert "[0, 1, 2]" == file.read()
    os.waitpid(child, 0)
    if state == "while a stream is open":
        assert 499 == sum(outcome.ok for outcome in keep)
    elif state == "while an executor is open":
        assert 2 == keep.submit(abs, -2).result(20)
        keep.shutdown()


@pytest.mark.all
def test_forked_child_that_unwinds_through_a_run():
    """A callback forks, and the child exits with SystemExit through our frames: the parent's run is unaffected."""
    script = """
import os, sys, warnings
from parallelkit import run_parallel
warnings.simplefilter("ignore", DeprecationWarning)  # of 3.12 on, for forks of a process with threads
def then(outcome):
    if outcome.key == 3:
        child = os.fork()
        if child == 0:
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
results = run_parallel(lambda n: __import__("time").sleep(0.01) or n, range(20), executor="processes", then=then)
print(results.values() == [*range(20)])
"""
    finished = run_script(script)
    assert ("True\n", "", 0) == (finished.out, finished.err, finished.code)


# At the end of the interpreter


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_in_an_exit_handler(executor):
    """Runs work in an ``atexit`` handler."""
    skip_if_no_threads("in an exit handler")
    script = f"""
import atexit
from parallelkit import run_parallel
atexit.register(lambda: print(run_parallel(abs, [-1, 2], executor={executor!r}).values()))
"""
    finished = run_script(script)
    assert ("[1, 2]\n", "", 0) == (finished.out, finished.err, finished.code)


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_in_a_finalizer_at_the_very_end(executor):
    """In a finalizer at interpreter exit, where imports and new threads fail, a run returns or raises, and never hangs."""
    script = f"""
import builtins
from parallelkit import run_parallel
run_parallel(abs, [1], executor={executor!r})
class Last:
    def __del__(self, run=run_parallel, print=print):
        try:
            print(run(abs, [-1, 2], executor={executor!r}).values(), flush=True)
        except BaseException as error:
            print(type(error).__name__, flush=True)
builtins.last = Last()
"""
    with program("-", script=script) as started:
        finished = started.wait(20)
        assert [] == soon(started.descendants, [])
    assert finished.out in ("[1, 2]\n", "RuntimeError\n", "ImportError\n")


@BOTH
def test_in_a_finalizer(executor):
    """Runs work in a ``__del__`` that the garbage collector calls."""
    found = []

    class Last:
        def __init__(self):
            self.itself = self

        def __del__(self):
            found.append(values_of(executor))

    Last()
    import gc

    gc.collect()
    assert [[0, 1, 2]] == found


@pytest.mark.all
@pytest.mark.parametrize("executor", ["ThreadExecutor", "ProcessExecutor"])
def test_calls_are_done_before_exit_handlers_take_away_what_they_use(executor):
    """As with the standard pools: a call that waits at the end finds its temporary folder, whose own exit handler is the younger one."""
    script = f"""
import atexit, os, tempfile, time
from parallelkit import {executor}
def write(path, name):
    time.sleep(0.1)  # the program ends meanwhile
    with open(os.path.join(path, name), "x"):
        pass
folder = tempfile.TemporaryDirectory()
executor = {executor}(1)
calls = [executor.submit(write, folder.name, name) for name in "ab"]
atexit.register(lambda: print([call.done() and call.exception() for call in calls]))
"""
    finished = run_script(script)
    assert ("[None, None]\n", "", 0) == (finished.out, finished.err, finished.code)


@pytest.mark.all
@pytest.mark.parametrize("executor", ["ThreadExecutor", "ProcessExecutor"])
def test_an_exit_handler_may_open_an_executor(executor):
    """Its calls are made, and waited for, though those of the program are done by then."""
    skip_if_no_threads("in an exit handler")
    script = f"""
import atexit
from parallelkit import {executor}
atexit.register(lambda: {executor}(1).submit(print, "made", flush=True))
first = {executor}(1)
first.submit(abs, -1)
"""
    finished = run_script(script)
    assert ("made\n", "", 0) == (finished.out, finished.err, finished.code)
