"""``parallelkit run`` as it is used: a process of its own, with pipes, files and signals."""

import fcntl
import gc
import json
import os
import pty
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import termios
import time
from argparse import Namespace
from array import array
from bisect import bisect
from collections import deque
from contextlib import closing, suppress
from dataclasses import replace
from functools import reduce
from types import SimpleNamespace
from weakref import WeakSet

import pytest
from patience import wait_until

from parallelkit import Results, Retry, iter_parallel, run_parallel
from parallelkit._cancelled import TaskCancelled
from parallelkit._cli import main
from parallelkit._command import UsageError, _lines, _run, _sink, _stream_ledger
from parallelkit._command._arguments import at_least, expression, failures, rate, seconds
from parallelkit._command._lines import Lines
from parallelkit._command._sink import Sink, as_json, signals_heard
from parallelkit._command._stream_ledger import StreamLedger
from parallelkit._command._tally import Tally
from parallelkit._command._target import find_function
from parallelkit._facts import Facts
from parallelkit._outcomes import Failure, Success
from parallelkit.testing import FakeClock, inline_runs

COMMAND = [sys.executable, "-m", "parallelkit", "run"]
PATIENCE = 30
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # as a user's

TASKS = """
import os, subprocess, sys, time

FACTOR = 10

def scaled(line):
    return int(line) * FACTOR

def chatty(line):
    print("a word to the user")
    subprocess.run(["cat"])  # would eat the rest of the input
    return line

def foreign(line):
    return {"when": {1, 2}} if line == "set" else float(line)

def total(row):
    return row["a"] + row["b"]

def die(line):
    os.abort() if line == "1" else None
    return line

def slow(line):
    time.sleep(float(line))
    return line

def held(line):
    while int(line) >= 100 and not os.path.exists("go"):
        time.sleep(0.01)
    return line

def marked(line):
    open(f"begun {line}", "w").close()
    return slow(line)

def tried(line):
    with open(line, "a") as file:
        file.write("x")
    if os.path.getsize(line) < 3:
        raise OSError("not yet")
    return os.path.getsize(line)

def place(item):
    return item["place"]

def cut_short(line):
    from parallelkit import run_parallel
    return run_parallel(time.sleep, [1], run_timeout=0.01)[0] if line == "1" else line
"""

everywhere = pytest.mark.all


@pytest.fixture
def here(tmp_path):
    """A folder with a module of tasks in it."""
    (tmp_path / "tasks.py").write_text(TASKS)
    return tmp_path


def run(here, *argv, stdin="", **options):
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *argv],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=here,
        timeout=PATIENCE,
        check=False,
        env=BUFFERED,
        **options,
    )


def rows_of(text):
    return [json.loads(line) for line in text.splitlines()]


def values_of(text):
    return {row["key"]: row.get("value") for row in rows_of(text)}


# What goes in and what comes out


def test_lines_of_stdin_become_lines_of_json(here):
    """Each line is a call; its output line has key, ok, value or error, attempts and seconds. With failures, the exit code is 1."""
    done = run(here, "tasks:scaled", stdin="1\nx\n3\n")
    rows = {row["key"]: row for row in rows_of(done.stdout)}
    assert {0, 1, 2} == rows.keys()
    assert (True, 10, 1) == (rows[0]["ok"], rows[0]["value"], rows[0]["attempts"])
    assert rows[1]["error"].startswith("ValueError: invalid literal")
    assert (False, "ValueError") == (rows[1]["ok"], rows[1]["error_type"])
    assert all(row["seconds"] >= 0 for row in rows.values())
    assert "3 tasks in" in done.stderr
    assert "2 succeeded, 1 failed" in done.stderr
    assert "1 × ValueError" in done.stderr
    assert 1 == done.returncode


def test_files_and_stdin_one_after_another(here):
    """Files and ``-`` are read in order, options may stand anywhere, a module may be named by path; without failures the exit code is 0."""
    (here / "one").write_text("\ufeff1\r\n2\n")
    (here / "two").write_text("4")
    done = run(here, f"{here}/tasks.py:scaled", "one", "--order", "input", "-", "--quiet", "two", stdin="3\n")
    assert [10, 20, 30, 40] == [row["value"] for row in rows_of(done.stdout)]
    assert (0, "") == (done.returncode, done.stderr)


def test_a_file_in_a_package_is_a_part_of_it(here):
    """Its relative imports work, and it is not imported once more under another name. Modules beside it are found, too, but hide no others."""
    (here / "shop" / "web").mkdir(parents=True)
    for package in ("shop", "shop/web"):
        (here / package / "__init__.py").touch()
    (here / "shop" / "web" / "calls.py").write_text(
        "import beside, colorsys\nfrom ..names import f\ncolorsys.rgb_to_hsv"
    )
    (here / "shop" / "web" / "beside.py").touch()
    (here / "shop" / "web" / "colorsys.py").touch()
    (here / "shop" / "names.py").write_text(
        "def f(line): return __name__, *__import__('sys').modules.keys() & {'names', 'calls'}"
    )
    (here / "link.py").symlink_to("shop/web/calls.py")
    for path in ("shop/web/calls.py", "link.py"):
        assert {0: ["shop.names"]} == values_of(run(here, f"{path}:f", stdin="1\n").stdout)


def test_a_file_in_a_folder_that_cannot_be_a_package(tmp_path, monkeypatch):
    """A folder such as ``app.v2`` that has an ``__init__.py`` is no package, so what is in it is a module of its own."""
    folder = tmp_path / "app.v2"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "job_of_v2.py").write_text("def f(line): return __name__")
    monkeypatch.setattr(sys, "path", sys.path.copy())
    fn, module = find_function(f"{folder}/job_of_v2.py:f")
    assert "job_of_v2" == fn(1) == module.__name__
    del sys.modules["job_of_v2"]


def test_a_package_may_be_named_by_its_file(tmp_path, monkeypatch):
    """It is not imported once more as a module of itself."""
    (tmp_path / "stall").mkdir()
    (tmp_path / "stall" / "__init__.py").write_text("def f(line): return __name__")
    monkeypatch.setattr(sys, "path", sys.path.copy())
    fn, module = find_function(f"{tmp_path}/stall/__init__.py:f")
    assert "stall" == fn(1) == module.__name__
    del sys.modules["stall"]


def test_the_current_folder_may_be_gone(here):
    """A command in a folder that was removed runs what is installed."""
    (here / "gone").mkdir()
    command = f"rmdir ../gone; echo 1 | {sys.executable} -P -m parallelkit run builtins:int"
    done = subprocess.run(
        ["sh", "-c", command], cwd=here / "gone", capture_output=True, check=True, timeout=PATIENCE
    )
    assert {0: 1} == values_of(done.stdout)


@pytest.mark.all
def test_a_task_whose_own_run_was_stopped_is_a_failure(here):
    """TaskCancelled of a run within a task is the task's own error: it is written, counted, on the page, and the exit code is 1."""
    done = run(here, "tasks:cut_short", "--report", "page.html", stdin="1\n2\n")
    assert {0: (False, "TaskCancelled"), 1: (True, None)} == {
        row["key"]: (row["ok"], row.get("error_type")) for row in rows_of(done.stdout)
    }
    assert "1 × TaskCancelled" in done.stderr
    assert "1 failed</b>" in (here / "page.html").read_text()
    assert 1 == done.returncode


def test_rows_keys_and_groups(here):
    """With --jsonl the argument is the row; --key and --by are expressions over it that can use the module's names."""
    rows = "".join(json.dumps({"a": n, "b": 1, "place": "x", "id": f"n{n}"}) + "\n\n" for n in range(4))
    done = run(
        here, "tasks:total", "--jsonl", "--key", "[part for part in [item['id']]][0]", "--rate", "2/50ms",
        "--by", "place(item)", stdin=rows,
    )  # fmt: skip
    assert {"n0": 1, "n1": 2, "n2": 3, "n3": 4} == values_of(done.stdout)
    assert 0 == done.returncode


@everywhere
def test_by_makes_a_limit_for_each_group(here):
    """With one start an hour per group, three groups start three tasks, and the fourth task waits."""
    rows = "".join(json.dumps({"a": 1, "b": 1, "place": place}) + "\n" for place in "xyzx")
    limit = ("--rate", "1/1h", "--by", "item['place']", "--run-timeout", "2")
    done = run(here, "tasks:total", "--jsonl", *limit, stdin=rows)
    assert {0, 1, 2} == values_of(done.stdout).keys()
    assert "3 tasks in" in done.stderr
    assert "stopped: run_timeout of 2 s; not done: 1 that had not begun" in done.stderr
    assert 1 == done.returncode


@everywhere
def test_what_tasks_print_and_read_is_kept_apart(here):
    """What tasks and their module print goes to stderr, and a program that a task starts does not read the command's input."""
    (here / "tasks.py").write_text(TASKS + "print('a word to the user')")
    done = run(here, "tasks:chatty", "--max-workers", "1", stdin="1\n2\n3\n")
    assert ["1", "2", "3"] == [row["value"] for row in rows_of(done.stdout)]
    assert 4 == done.stderr.count("a word to the user")


def test_stdin_that_is_no_input_is_not_read(here):
    """A shell's loop around the command keeps its lines; except from inline tasks, whose debugger may read commands."""
    (here / "in").write_text("1\n")
    assert "of the loop" not in run(here, "tasks:chatty", "in", stdin="of the loop\n").stderr
    assert (
        "of the loop" in run(here, "tasks:chatty", "in", "--executor", "inline", stdin="of the loop\n").stderr
    )
    assert {0: 70} == values_of(run(here, "tasks:scaled", "/dev/stdin", stdin="7\n").stdout)


@everywhere
def test_processes_crash_one_task(here):
    """A task that kills its process is one failure, named as such."""
    done = run(here, "tasks.py:die", "--executor", "processes", stdin="1\n2\n")
    rows = {row["key"]: row for row in rows_of(done.stdout)}
    assert "WorkerDied" == rows[0]["error_type"]
    assert "2" == rows[1]["value"]


def test_no_time_is_spent_on_a_bar_that_nobody_sees(here):
    """If stderr is no terminal, tqdm, whose import takes a third of the time of a short command, is not imported."""
    command = [sys.executable, "-X", "importtime", *COMMAND[1:], "builtins:len"]
    done = subprocess.run(command, input=b"a\n", capture_output=True, check=True, cwd=here, timeout=PATIENCE)
    said = done.stderr.decode()
    assert "parallelkit._command._run" in said
    assert "tqdm" not in said


@everywhere
def test_retries_and_timeout(here):
    """Retries are made, counted and reported, and a task past its timeout fails."""
    done = run(here, "tasks:tried", "--retries", "2", stdin="file\n")
    assert [(3, 3)] == [(row["value"], row["attempts"]) for row in rows_of(done.stdout)]
    assert "2 retries" in done.stderr

    done = run(here, "tasks:slow", "--timeout", "50ms", "--executor", "processes", stdin="30\n")
    assert ["TaskTimeout"] == [row["error_type"] for row in rows_of(done.stdout)]


def endless():
    cycle = []
    cycle.append(cycle)
    return cycle


def test_what_is_no_json_is_shown_as_python_shows_it():
    """What JSON cannot express is written as its repr, with a flag: only that part, or for dict keys the whole value."""
    assert {"value": [1, {"a": "{1}"}], "repr": True} == json.loads(as_json({"value": (1, {"a": {1}})}))
    numbers = {"a": float("nan"), "b": [float("-inf"), 1.5], "c": {1}}
    spelt = {"a": "nan", "b": ["-inf", 1.5], "c": "{1}"}
    assert {"value": spelt, "repr": True} == json.loads(as_json({"value": numbers}))
    assert {"value": "[[...]]", "repr": True} == json.loads(as_json({"value": endless()}))
    assert {"value": "{(1, 2): 3}", "repr": True} == json.loads(as_json({"value": {(1, 2): 3}}))
    assert '{"value": "ü\\\\\\udc80"}'.encode() == as_json({"value": "ü\\\udc80"})
    assert {"value": "ü\\\udc80"} == json.loads(as_json({"value": "ü\\\udc80"}))
    assert '{"value": "ü"}'.encode() == as_json({"value": "ü"})

    def is_too_deep(depth):
        return "repr" in json.loads(as_json({"value": reduce(lambda inner, _: [inner], range(depth), [])}))

    assert 100 < bisect(range(500_000), False, key=is_too_deep) < 500_000

    class Mute:
        def __repr__(self):
            raise OSError

    assert "<Mute, whose repr raised OSError>" == json.loads(as_json({"value": Mute()}))["value"]
    shown = {"key": {"a": 1}, "value": "<int, whose repr raised ValueError>", "repr": True}
    assert shown == json.loads(as_json({"key": {"a": 1}, "value": 10**5000}))


@everywhere
def test_numpy_becomes_numbers_and_lists():
    """NumPy scalars and arrays become JSON numbers and lists."""
    numpy = pytest.importorskip("numpy")
    assert b'{"value": [1, [0.5, 2.0]]}' == as_json({"value": [numpy.int64(1), numpy.array([0.5, 2])]})
    assert b'{"value": [0.5, 2.0]}' == as_json({"value": array("d", [0.5, 2])})  # the standard library's
    gaps = json.loads(as_json({"value": numpy.array([numpy.nan] + [0.5] * 2000)}))
    assert {"value": ["nan"] + [0.5] * 2000, "repr": True} == gaps, (
        "numpy's own repr would leave most of it out"
    )


# Files


def test_output_report_and_trace(here):
    """--output replaces the file's content; the page and the trace are written at the end."""
    (here / "out.jsonl").write_text("old\n" * 100)
    done = run(
        here, "tasks:scaled", "--output", "out.jsonl", "--report", "out.html", "--trace", "out.json",
        "--retries", "1", "--max-workers", "3", stdin="1\nx\n",
    )  # fmt: skip
    assert "" == done.stdout
    assert {0: 10, 1: None} == values_of((here / "out.jsonl").read_text())
    page = (here / "out.html").read_text()
    assert "2 tasks" in page
    assert "threads, 3 workers" in page
    assert "ValueError" in page
    slices = [e for e in json.loads((here / "out.json").read_text())["traceEvents"] if e["ph"] == "X"]
    assert 3 == len(slices)  # the attempt that was retried is among them


@pytest.mark.parametrize("name", ["report", "trace"])
def test_a_report_or_a_trace_alone(here, name):
    """Each is written without the other, too."""
    (here / "in").write_text("1\n")
    saved = here / "saved"
    argv = ["--quiet", "--output", os.devnull, f"--{name}", str(saved)]
    assert 0 == main(["run", "builtins:int", str(here / "in"), *argv])
    assert "attempt" in saved.read_text()


@pytest.mark.all
def test_the_output_is_not_emptied_before_the_journal_is_ours(here):
    """A command that does not get its journal leaves the output alone: another may have just begun with both."""
    argv = ["tasks:scaled", "--key", "item", "--checkpoint", "journal", "--output", "out.jsonl"]
    (here / "journal-new").write_text("something else")
    (here / "out.jsonl").write_text("lines\n" * 99)
    assert 2 == run(here, *argv, stdin="1\n").returncode
    assert "lines\n" * 99 == (here / "out.jsonl").read_text()
    (here / "journal-new").unlink()
    assert 0 == run(here, *argv, stdin="1\n").returncode
    assert {"1": 10} == values_of((here / "out.jsonl").read_text())
    assert 0 == run(here, *argv, stdin="").returncode
    assert "" == (here / "out.jsonl").read_text()


def test_a_device_may_be_named_for_several_purposes(here, monkeypatch):
    """A device cannot be emptied, and what is written to it destroys nothing; it may be the input as well."""
    monkeypatch.chdir(here)
    null = os.devnull
    assert Lines([null]).same_file(os.stat(null)) is None
    argv = f"run builtins:int {null} --key item --checkpoint j --output {null} --report {null} --trace {null}"
    assert 0 == main(argv.split())


def test_a_kill_leaves_whole_lines_and_the_journal_goes_on(here):
    """After SIGKILL, the output has only whole lines; the same command again does the rest."""
    (here / "in").write_text("".join(f"{number}\n" for number in range(200)))
    argv = ["tasks:held", "in", "--key", "item", "--checkpoint", "run.journal", "--output", "out", "--quiet"]
    with subprocess.Popen([*COMMAND, *argv], cwd=here) as command:
        wait_until(lambda: (here / "out").exists() and (here / "out").read_text().count("\n") > 50)
        wait_until(lambda: is_recorded(here / "run.journal"))
        command.kill()
    before = (here / "out").read_text()
    assert before.endswith("\n")
    assert all(row["ok"] for row in rows_of(before))

    (here / "go").touch()
    done = run(here, *argv)
    rows = rows_of((here / "out").read_text())
    assert 0 == done.returncode
    assert 200 == len(rows) == len({row["key"] for row in rows})
    assert any(row["attempts"] == 0 for row in rows)
    assert any(row["attempts"] == 1 for row in rows)


def is_recorded(journal):
    """Whether the journal has an outcome."""
    with closing(sqlite3.connect(journal)) as connection:
        return connection.execute("SELECT count(*) FROM outcomes").fetchone() > (0,)


@everywhere
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_ends_it(here):
    """A full disk stops the run, with the reason and without a traceback."""
    done = run(here, "tasks:scaled", "--output", "/dev/full", "--quiet", stdin="1\n" * 100_000)
    assert "parallelkit run: error: the output cannot be written: No space left on device\n" == done.stderr
    assert 1 == done.returncode


PRESSING = """
import asyncio, os, signal
async def press(line):
    if line == "1":
        await asyncio.sleep(30)
    os.kill(os.getpid(), signal.SIGINT)
"""


def test_a_full_disk_after_ctrl_c_is_told_without_a_traceback(here, monkeypatch, capfd):
    """If there is no room for what was done before Ctrl-C, the command says so, and ends as interrupted."""
    from parallelkit._command._sink import OutputError, Sink

    def full(self, outcome):
        raise OutputError("the output cannot be written: it is full")

    (here / "pressing.py").write_text(PRESSING)
    (here / "in").write_text("1\n2\n")
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(Sink, "write", full)
    with pytest.raises(KeyboardInterrupt):
        main(["run", "pressing:press", "in", "--order", "input"])
    said = capfd.readouterr().err
    assert "\nstopped: interrupted; not done: 1 that had begun" in said
    assert "\nparallelkit run: error: the output cannot be written: it is full\n" in said
    sys.modules.pop("pressing", None)


@everywhere
def test_a_report_of_a_resumed_run(here):
    """The page of a resumed run includes recorded outcomes; ``--output -`` is stdout."""
    argv = ("tasks:scaled", "--key", "item", "--checkpoint", "j", "--report", "r.html", "--output", "-")
    assert {"1": 10} == values_of(run(here, *argv, stdin="1\n").stdout)
    done = run(here, *argv, stdin="1\n2\n")
    assert {"1": 10, "2": 20} == values_of(done.stdout)
    assert "1 from the checkpoint" in done.stderr
    assert "2 tasks" in (here / "r.html").read_text()


def test_what_is_kept_for_the_page_holds_no_variable_of_a_task():
    """The page has the tracebacks of failures, but until it is written nothing that the frames of the tasks held."""
    held = WeakSet()

    def fail(item):
        body = type("Body", (), {})()
        held.add(body)
        try:
            raise KeyError(item)
        except KeyError as error:
            raise ExceptionGroup("both", [error]) from error

    kept = StreamLedger()
    for outcome in iter_parallel(
        fail, [1, 2], executor="inline", on_event=kept.hear, retries=Retry(1, delay=0)
    ):
        kept.keep(outcome)
    del outcome
    gc.collect()
    assert [] == list(held)
    assert ([1, 1], [2, 2]) == (
        [one.number for _, one in kept.ledger.tried],
        [one.number for one in kept.ledger.failed.values()],
    )
    texts = [one.traceback for one in (*kept.ledger.failed.values(), *(one for _, one in kept.ledger.tried))]
    assert all("raise KeyError(item)" in text and "raise ExceptionGroup" in text for text in texts)


def attempts_of(results):
    """What is told of each attempt, by key; the index in a stream is that of its completion."""
    told = [replace(one, index=0, error=repr(one.error)) for one in results.attempts]
    return sorted((one.key, one.number, one) for one in told)


def test_what_is_kept_for_the_page_is_what_the_library_keeps(monkeypatch):
    """The page shows the same attempts as that of ``run_parallel``, and the facts of the run, without the values."""

    def task(item):
        clock.advance(1)
        return 12 // item if clock() > 5 else 1 / 0

    options = {"key": str, "executor": "inline", "retries": Retry(2, delay=3)}
    processor, thread = iter([10.0, 17.0]), iter([4.0, 6.0])
    monkeypatch.setattr(
        _stream_ledger, "time", SimpleNamespace(process_time=processor.__next__, thread_time=thread.__next__)
    )
    kept = StreamLedger()
    with inline_runs() as clock:
        for outcome in iter_parallel(task, [1, 0, 2], on_event=kept.hear, **options):
            kept.keep(outcome)
    kept.conclude(
        Facts(executor="inline", max_workers=3, began_at=50.0, timeout=5.0), 30.0, 1.5, "interrupted"
    )
    with inline_runs() as clock:
        made = attempts_of(run_parallel(task, [1, 0, 2], **options))
    told = Results(kept.ledger)
    assert made == attempts_of(told)
    assert {("0", 1), ("0", 2), ("0", 3), ("1", 1), ("1", 2)} <= {one[:2] for one in made}
    assert {"1": None, "2": None} == dict(told.successes)
    assert ("interrupted", 30.0) == (told.stopped, told.summary.wall)
    known = Facts(
        executor="inline", max_workers=3, timeout=5.0, ended_at=30.0, input_seconds=1.5, cpu_seconds=5.0
    )
    assert [(name, getattr(known, name)) for name in Facts.__annotations__] == [
        (name, getattr(kept.ledger.facts, name)) for name in Facts.__annotations__
    ]


def test_the_time_of_the_input_is_not_that_of_the_tasks(monkeypatch):
    """Only while the input is read does time count for it, or the page would blame it for slow tasks."""
    clock = FakeClock()

    class Slow(list):
        def __iter__(self):
            for item in super().__iter__():
                clock.advance(1)
                yield item

        def may_wait(self):
            return False

    monkeypatch.setattr(_run, "time", SimpleNamespace(monotonic=clock))
    run = _run.Run(Namespace(report=None, trace=None), Slow("ab"), ())
    for _ in run._read():
        clock.advance(10)
    assert 2 == run._input_seconds


# Signals and pipes


def test_interrupt_ends_it_by_sigint_and_keeps_what_was_done(here):
    """Ctrl-C ends the command by SIGINT, so that a shell's loop ends, too; what was done is written, the rest only counted."""
    with subprocess.Popen(
        [*COMMAND, "tasks:marked", "--max-workers", "2"],
        cwd=here, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as command:  # fmt: skip
        command.stdin.write("0\n0\n600\n")
        command.stdin.close()
        lines = [command.stdout.readline(), command.stdout.readline()]
        wait_until((here / "begun 600").exists)
        command.send_signal(signal.SIGINT)
        rest, said = command.stdout.read(), command.stderr.read()
    assert {0: "0", 1: "0"} == values_of("".join(lines) + rest)
    assert "2 tasks in" in said
    assert "stopped: interrupted; not done: 1 that had begun" in said
    assert "Traceback" not in said
    assert -signal.SIGINT == command.returncode


class AlarmError(Exception):
    """What the handler of an alarm raises."""


def ring(number, frame):
    raise AlarmError


def test_nothing_is_written_where_there_is_no_room(monkeypatch):
    """Nothing is written into a full pipe: a signal on the way into a blocking ``write`` would be noticed only when somebody reads."""
    read, write = os.pipe()
    held = fcntl.fcntl(write, fcntl.F_GETPIPE_SZ)
    os.write(write, bytes(held))
    before = signal.signal(signal.SIGALRM, ring)
    try:
        with signals_heard() as heard:
            with monkeypatch.context() as patched, pytest.raises(AlarmError):
                patched.setattr(os, "write", None)
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                Sink(write, heard).write(of_value(1))
            os.read(read, held)
            Sink(write, heard).write(of_value("x" * 10_000))
        assert "x" * 10_000 == json.loads(os.read(read, held))["value"]
    finally:
        signal.signal(signal.SIGALRM, before)
        os.close(read)
        os.close(write)


def of_value(value):
    return Success("key", 0, value, 1, 0.0, 0.0, 0.0, "thread 1")


@everywhere
def test_interrupt_ends_it_where_nobody_reads(here):
    """Ctrl-C ends the command at once, even if its output pipe is full and nobody reads it."""
    with (
        subprocess.Popen(["yes", "1"], stdout=subprocess.PIPE) as source,
        subprocess.Popen(
            [*COMMAND, "tasks:scaled"],
            cwd=here, stdin=source.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as command,
    ):  # fmt: skip
        source.stdout.close()
        assert 10 == json.loads(command.stdout.readline())["value"]
        wait_until(lambda: is_full(command.stdout))
        command.send_signal(signal.SIGINT)
        assert -signal.SIGINT == command.wait(PATIENCE)
        assert "stopped: interrupted" in command.stderr.read()


@everywhere
def test_interrupt_between_two_writes_ends_it_where_nobody_reads(here):
    """What was done before Ctrl-C is not waited for if the output pipe is full and stays so; it is counted."""
    (here / "pressing.py").write_text(PRESSING)
    read, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write, bytes(4096))
    os.set_blocking(write, True)
    done = subprocess.run(
        [*COMMAND, "pressing:press", "--order", "input"],
        cwd=here, input="1\n2\n", stdout=write, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    os.close(read)
    os.close(write)
    assert -signal.SIGINT == done.returncode
    assert "1 task in" in done.stderr
    assert "stopped: interrupted; not done: 1 that had begun" in done.stderr


@pytest.mark.parametrize("place", ["line_of", "_has_room"])
def test_ctrl_c_in_the_writing_of_a_line_costs_no_line(tmp_path, monkeypatch, place):
    """A line in whose making or writing Ctrl-C comes is written once, and whole, when the rest is."""
    owner, pressed = (_sink if place == "line_of" else _sink.Sink), []
    original = getattr(owner, place)

    def press(*given):
        pressed.append(place)
        if len(pressed) == 2:  # in the first line, which takes two writes, or before the second
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(owner, place, press)
    outcomes = list(iter_parallel(lambda item: item * 5000, list("abc"), executor="inline"))
    with open(tmp_path / "out", "wb", 0) as file, _sink.signals_heard() as heard:
        sink = _sink.Sink(file.fileno(), heard)
        for outcome in outcomes:
            with suppress(KeyboardInterrupt):
                sink.write(outcome)
        sink.finish()
    assert [0, 1, 2] == [row["key"] for row in rows_of((tmp_path / "out").read_text())]


def test_ctrl_c_in_the_making_of_a_line_leaves_it_to_be_written(here, monkeypatch):
    """Ctrl-C while the command makes or writes a line keeps neither that line nor later ones from its output."""

    def press(outcome, make=_sink.line_of):
        monkeypatch.setattr(_sink, "line_of", make)
        raise KeyboardInterrupt

    (here / "in").write_text("1\n")
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(_sink, "line_of", press)
    with pytest.raises(KeyboardInterrupt):
        main(["run", "builtins:int", "in", "--quiet", "--output", "out"])
    assert [1] == [row["value"] for row in rows_of((here / "out").read_text())]


def is_full(pipe):
    """Whether a pipe is (nearly) full."""
    held = bytearray(4)
    fcntl.ioctl(pipe, termios.FIONREAD, held)
    return int.from_bytes(held, sys.byteorder) > 0.9 * fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)


def closing_of(fd):
    """The beginning of a command line: what follows runs with this descriptor closed."""
    return ["sh", "-c", f'exec "$@" {fd}>&-', "sh"]


@pytest.mark.all
def test_what_is_said_never_gets_into_the_output(here):
    """If stderr is closed, its messages do not go into the output file, which would otherwise get its descriptor."""
    (here / "in").write_text("1\n2\n")
    (here / "tasks.py").write_text(f"import os\n{TASKS}\nos.write(2, b'noise')")
    line = [*closing_of(2), *COMMAND, "tasks:scaled", "in", "--order", "input"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=here, timeout=PATIENCE, check=True)
    assert [10, 20] == [row["value"] for row in rows_of(done.stdout)]


@pytest.mark.all
def test_without_stdout_there_is_an_output_or_a_reason(here):
    """A closed stdout is wrong usage, unless the output is a file."""
    (here / "in").write_text("1\n")
    line = [*closing_of(1), *COMMAND, "tasks:scaled", "in", "--quiet"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, cwd=here) as command:
        assert "error: there is no standard output; give --output\n" in command.stderr.read()
    assert 2 == command.returncode
    subprocess.run([*line, "--output", "out"], cwd=here, timeout=PATIENCE, check=True)
    assert [10] == [row["value"] for row in rows_of((here / "out").read_text())]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.all
def test_that_nobody_hears_the_summary_is_no_failure(here):
    """If stderr cannot be written, outcomes, page and exit code are the same."""
    (here / "in").write_text("1\n")
    line = [*COMMAND, "tasks:scaled", "in", "--output", "out", "--report", "page"]
    with open("/dev/full", "w") as full:
        subprocess.run(line, cwd=here, timeout=PATIENCE, check=True, stderr=full)
    assert [10] == [row["value"] for row in rows_of((here / "out").read_text())]
    assert "<html" in (here / "page").read_text()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.all
def test_a_page_that_cannot_be_written_costs_the_page_alone(here):
    """If the page cannot be written, the trace still is; the exit code is 1."""
    done = run(here, "tasks:scaled", "--report", "/dev/full", "--trace", "trace", "--quiet", stdin="1\n")
    assert (1, "parallelkit run: error: --report /dev/full: No space left on device\n") == (
        done.returncode,
        done.stderr,
    )
    assert json.loads((here / "trace").read_text())["traceEvents"]


def test_head_ends_it(here):
    """If the reader goes away, the command ends silently, even with endless input."""
    with (
        subprocess.Popen(["yes", "1"], stdout=subprocess.PIPE) as source,
        subprocess.Popen(
            [*COMMAND, "tasks:scaled", "--quiet"],
            cwd=here, stdin=source.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as command,
    ):  # fmt: skip
        source.stdout.close()
        assert 10 == json.loads(command.stdout.readline())["value"]
        command.stdout.close()
        assert "" == command.stderr.read()
    assert (141, -signal.SIGPIPE) == (command.returncode, source.returncode)


@pytest.mark.parametrize(("options", "end"), [((), "\n"), (("-0",), "\0")], ids=["lines", "null"])
def test_no_result_waits_for_the_next_line(here, options, end):
    """Each line's outcome is written before the next line arrives; so is that of an item before a NUL byte."""
    with subprocess.Popen(
        [*COMMAND, "tasks:scaled", "--quiet", *options],
        cwd=here,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as command:
        for number in range(3):
            command.stdin.write(f"{number}{end}")
            command.stdin.flush()
            assert number * 10 == json.loads(command.stdout.readline())["value"]
        command.stdin.close()
        assert "" == command.stdout.read()
    assert 0 == command.returncode


@everywhere
def test_memory_is_flat(here):
    """The command needs no more memory for 300,000 lines than for 3,000."""

    def peak(lines):
        source = f"print('1\\n' * {lines})"
        code = "import resource, sys; from parallelkit._cli import main; code = main(sys.argv[1:]);"
        code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
        text = subprocess.run(
            [sys.executable, "-c", source], capture_output=True, text=True, check=True
        ).stdout
        done = subprocess.run(
            [sys.executable, "-c", code, "run", "tasks:scaled", "--quiet", "--output", os.devnull],
            input=text, capture_output=True, text=True, cwd=here, check=False, timeout=PATIENCE,
        )  # fmt: skip
        return int(done.stderr) / 1024  # MiB

    assert peak(300_000) < peak(3_000) + 8


@everywhere
@pytest.mark.parametrize("wish", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_color_is_obeyed(here, wish):
    """On a terminal the summary is coloured, unless NO_COLOR is set or the terminal has no colours."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    try:
        environment = {**os.environ, "TERM": "xterm", **wish}
        environment = {name: value for name, value in environment.items() if name != "NO_COLOR" or wish}
        (here / "in").write_text("1\n")
        subprocess.run(
            [*COMMAND, "tasks:scaled", "in", "--output", "out"],
            cwd=here, stderr=theirs, check=True, timeout=PATIENCE, env=environment,
        )  # fmt: skip
        said = os.read(ours, 100_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "1/1" in said  # the bar
    assert "1 succeeded" in said
    assert bool(wish) == ("\x1b[32m" not in said)


@pytest.mark.all
@pytest.mark.parametrize("argv", [["--output", "out", "--quiet"], []], ids=["quiet", "lines on the screen"])
def test_no_bar_is_drawn_that_nobody_wants(here, argv):
    """On a terminal there is no bar with --quiet, nor among output lines that go to the screen as well."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    (here / "in").write_text("1\n")
    command = [*COMMAND, "tasks:scaled", "in", *argv]
    subprocess.run(command, cwd=here, stdout=theirs, stderr=theirs, check=True, timeout=PATIENCE)
    os.write(theirs, b"end")
    said = os.read(ours, 100_000).decode()
    os.close(ours)
    os.close(theirs)
    assert "1/1" not in said
    assert "--quiet" not in argv or said == "end"


# Wrong usage


LAZY = """
def work(line): return line
def __dir__(): return ["heavy", "work"]
def __getattr__(name):
    if name == "heavy":
        raise ImportError("heavy needs more packages")
    raise AttributeError(name)
"""


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ([], "required: MODULE:FUNCTION\n"),
        (["tasks"], "MODULE:FUNCTION: must be two names"),
        (["tasks:scald"], "has no function 'scald'; did you mean 'scaled'?"),
        (["tasks:FACTOR"], "must name something to call, got tasks:FACTOR (int)"),
        (["tasks:FACTOR.real_"], "'tasks:FACTOR.real_' has no function 'real_'"),
        (["nowhere:f"], "there is no module 'nowhere'"),
        (["tasks.py::scaled"], "must be two names with a colon between, got 'tasks.py::scaled'"),
        (["math:"], "must be two names with a colon between, got 'math:'"),
        (["a.b.py:f"], "a file's name must have no dot except in .py, got a.b.py"),
        (["nowhere.py:f"], "there is no file nowhere.py"),
        (["no/where:f"], "there is no file no/where"),
        (["nowhere.deep:f"], "there is no module 'nowhere'"),
        (["broken.py:f"], "ZeroDivisionError"),
        (["script.py:f"], "'script' cannot be imported\nTraceback"),
        (["lacking:f"], "'lacking' cannot be imported\nTraceback"),
        (["sys.py:f"], "sys.py has the same name as another module (built in); rename it"),
        (["lazy:workk"], "'lazy' has no function 'workk'; did you mean 'work'?"),
        (["lazy:heavy"], "'lazy:heavy' cannot be imported\nTraceback"),
        (["json.py:f"], "rename it"),
        (["tasks:scaled", "nothing"], "INPUT: there is no file nothing"),
        (["tasks:scaled", "."], "INPUT: . is a folder"),
        (["tasks:scaled", "--by", "item"], "--by: needs --rate"),
        (["tasks:scaled", "--checkpoint", "j"], "--checkpoint: needs --key"),
        (["tasks:scaled", "--checkpoint", "tasks.py", "--key", "item"], "--checkpoint: must be a whole journal"),
        (["tasks:scaled", "--checkpoint", "no/j", "--key", "item"], "--checkpoint: must be in a folder"),
        (["tasks:scaled", "--checkpoint", ".", "--key", "item"], "--checkpoint: must be a file"),
        (["tasks:scaled", "--output", "no/where"], "--output: no/where cannot be written"),
        (["tasks:scaled", "--report", "no/where"], "--report: no/where cannot be written: there is no folder no"),
        (["tasks:scaled", "--report", ""], "--report: must be a path, got ''"),
        (["tasks:scaled", "--report", "."], "--report: . cannot be written: it is a folder"),
        (["tasks:scaled", ""], "INPUT: must be a path, got ''"),
        (["tasks:scaled", "tasks.py", "--output", "tasks.py"], "--output: tasks.py is the input and the output"),
        (["tasks:scaled", "tasks.py", "--report", "tasks.py"], "--report: tasks.py is the input"),
        (["tasks:scaled", "--output", "tasks.py"], "--output: tasks.py is the module as well"),
        (["tasks:scaled", "--key", "item", "--checkpoint", "j", "--output", "./j"], "--output: ./j is --checkpoint"),
        (["tasks:scaled", "--report", "page", "--trace", "page"], "--trace: page is --report as well"),
        (["tasks:scaled", "--max-workers", "0"], "--max-workers: must be a whole number, at least 1"),
        (["tasks:scaled", "--max-workers", "-1"], "--max-workers: must be a whole number, at least 1"),
        (["tasks:scaled", "-0", "--jsonl"], "argument --jsonl: not allowed with argument -0/--null"),
        (["tasks:coroutine", "--executor", "processes", "--output", "tasks.py"], "coroutine"),
        (["tasks:scaled", "--rate", f"1/{'9' * 400}d"], "--rate: must be STARTS/TIME"),
        (["tasks:scaled", "--key", "item["], "--key: must be a Python expression"),
        (["tasks:scaled", "--key", "await item"], "--key: must be a Python expression"),
        (["tasks:scaled", "--key", "itm"], "--key: name 'itm' is not defined; did you mean 'item'?"),
        (["tasks:scaled", "--rate", "1/1s", "--by", "[x for y in item]"], "--by: name 'x' is not defined; it can use"),
        (["tasks:scaled", "--rates", "1/1s"], "--rates"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_wrong_usage_names_the_option(here, monkeypatch, capfd, argv, named):
    """Wrong usage exits with 2, prints the usage and the option to stderr and nothing to stdout, and changes no file."""
    (here / "tasks.py").write_text(TASKS + "async def coroutine(line): pass\n")
    (here / "broken.py").write_text("1 / 0")
    (here / "lazy.py").write_text(LAZY)
    for name in ("json", "sys"):
        (here / f"{name}.py").write_text("def f(line): pass")
    (here / "script.py").write_text("import sys\nsys.exit(3)")  # as without a main guard
    (here / "lacking.py").write_text("import a_package_that_is_not_installed")
    (here / "a.b.py").touch()
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    for name in ("tasks", "broken", "lazy"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert 2 == main(["run", *argv])
    said = capfd.readouterr()
    assert "" == said.out
    assert "usage: parallelkit run" in said.err
    assert "\nparallelkit run: error: " in said.err
    assert named in said.err
    assert "importlib" not in said.err
    assert (here / "tasks.py").read_text().startswith(TASKS)
    for name in ("tasks", "broken", "lazy"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(("inputs", "named"), [(["in"], "in"), ([], "standard input")])
def test_an_output_that_is_also_the_input_is_refused(here, inputs, named):
    """``>> in`` would make lines of its own lines until the disk is full."""
    (here / "in").write_text("1\n")
    with open(here / "in") as source, open(here / "in", "a") as out:
        command = [*COMMAND, "builtins:str", *inputs]
        done = subprocess.run(
            command,
            stdin=source,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            cwd=here,
            timeout=PATIENCE,
            check=False,
        )
    assert 2 == done.returncode
    assert f"argument INPUT: {named} is the input and the output at once\n" in done.stderr
    assert "1\n" == (here / "in").read_text()


def test_who_types_lines_is_told_how_to_end_them(here):
    """A command that reads from the terminal says so: it seems to hang otherwise."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "tasks:scaled"],
        cwd=here,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        os.write(ours, b"1\n\x04")
        out, said = command.communicate(timeout=PATIENCE)
    os.close(ours)
    os.close(theirs)
    assert {0: 10} == values_of(out)
    assert said.startswith("parallelkit: reading lines from the terminal; end them with Ctrl-D\n")


LAME = '{"a": 1, "b": 2, "id": "x"}\n\n{"a":\n{"a": 3, "b": 4, "id": "y"}\r\nwhat?\r\n'


def test_a_line_that_is_no_json_is_a_failure_of_its_own(here):
    """A line that is not JSON fails with file, line and column, without a worker, retry or token; the others run."""
    options = ("--order", "input", "--retries", "3", "--rate", "2/1h", "--by", "item['id'][:0]")
    done = run(here, "tasks:total", "--jsonl", *options, stdin=LAME)
    rows = rows_of(done.stdout)
    assert [(0, True, 1), (1, False, 0), (2, True, 1), (3, False, 0)] == [
        (row["key"], row["ok"], row["attempts"]) for row in rows
    ]
    assert [3, 7] == [row["value"] for row in rows if row["ok"]]
    where = "ValueError: standard input, line"
    assert f"{where} 3, column 6: not JSON: Expecting value" == rows[1]["error"]
    assert f"{where} 5, column 1: not JSON: Expecting value" == rows[3]["error"]
    assert "4 tasks" in done.stderr
    assert "2 succeeded, 2 failed\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert 1 == done.returncode


@pytest.mark.all
def test_a_line_that_is_no_json_has_its_place_for_a_key(here):
    """With --key, a line that is not JSON has its place as its key, so that it conflicts with no other, and can be corrected and resumed."""
    (here / "lame").write_text(LAME)
    argv = (
        "tasks:total",
        "lame",
        "--jsonl",
        "--key",
        "item['id']",
        "--checkpoint",
        "journal",
        "--report",
        "r.html",
    )
    done = run(here, *argv)
    assert {"x": 3, "lame:3": None, "y": 7, "lame:5": None} == values_of(done.stdout)
    assert "checkpoint" not in done.stderr
    (here / "lame").write_text(LAME.replace('{"a":\n', '{"a": 5, "b": 6, "id": "z"}\n'))
    done = run(here, *argv)
    assert {"x": 3, "z": 11, "y": 7, "lame:5": None} == values_of(done.stdout)
    assert "4 tasks" in done.stderr
    assert "3 succeeded, 1 failed, 2 from the checkpoint\n" in done.stderr
    assert 1 == done.returncode


def test_even_a_quiet_command_says_why_lines_are_missing(here, monkeypatch, capfd):
    """With --quiet there is no summary, but a stopped run, which wrote no lines for the rest, says why."""
    monkeypatch.chdir(here)
    (here / "in").write_text("x\n" * 3)
    assert 1 == main(["run", "builtins:int", "in", "--quiet", "--max-failures", "1", "--executor", "inline"])
    assert capfd.readouterr().err.startswith(
        "parallelkit run: stopped: max_failures of 1 reached; not done: "
    )
    assert 1 == main(["run", "builtins:int", "in", "--quiet"])  # each failure has its line
    assert "" == capfd.readouterr().err


def test_lines_that_are_no_json_count_as_failures(here):
    """Lines that are not JSON, or are nested too deeply or have too many digits, count for --max-failures."""
    lines = f"{'[' * 100_000}\n{'1' * 5000}\n" + '{"a": 1, "b": 1}\n' * 10
    done = run(here, "tasks:total", "--jsonl", "--max-failures", "2", "--executor", "inline", stdin=lines)
    assert [False, False] == [row["ok"] for row in rows_of(done.stdout)][:2]
    assert re.search("line 1: not JSON: (maximum recursion depth|Stack overflow)", done.stdout)
    assert "line 2: not JSON: Exceeds the limit" in done.stdout
    assert "stopped: max_failures of 2 reached" in done.stderr
    assert 1 == done.returncode


@pytest.mark.all
def test_a_blank_line_is_an_item_as_text_and_none_as_json(here):
    """A blank line is an item as text, and is skipped as JSON."""
    blank = "\n  \n1\n"
    assert ["", "  ", "1"] == [
        row["value"] for row in rows_of(run(here, "builtins:str", "--order", "input", stdin=blank).stdout)
    ]
    assert {0: "1"} == values_of(run(here, "builtins:str", "--jsonl", stdin=blank).stdout)


def test_a_line_that_is_not_utf8_is_the_name_of_its_file(tmp_path):
    """Other bytes become what ``open`` turns back into them, as in a file name of Latin-1; and a lone CR ends no line."""
    (tmp_path / "names").write_bytes(b"\xe4.txt\na\rb\n")
    assert [b"\xe4.txt", b"a\rb"] == [os.fsencode(line) for line in Lines([f"{tmp_path}/names"])]


def test_a_pipe_among_files_may_make_its_reader_wait(tmp_path):
    """Then its lines are read in a thread, wherever it stands, so that outcomes do not wait for the next line."""
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    file, pipe = f"{tmp_path}/file", f"{tmp_path}/pipe"
    assert [False, True] == [Lines([file, path]).may_wait() for path in (file, pipe)]


def test_a_standard_input_that_is_closed_is_missed(monkeypatch):
    """Only where it would be read."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="there is no standard input; name files"):
        Lines([])
    Lines([os.devnull])


def test_items_between_null_bytes_are_as_they_are(tmp_path, monkeypatch):
    """With -0 no line end, byte order mark or byte that is not UTF-8 is lost, wherever a block of what is read ends; the last NUL may lack."""
    texts = ["\ufeffa\nb\r\n", "", "\udcff", " ü ", "last"]
    (tmp_path / "items").write_bytes("\0".join(texts).encode(errors="surrogateescape"))
    for block in (1, 1 << 16):
        monkeypatch.setattr(_lines, "BLOCK", block)
        assert [*texts, *texts] == list(Lines([f"{tmp_path}/items"] * 2, null=True))


def test_a_long_item_takes_no_longer_than_many_short_ones(tmp_path):
    """A whole file of lines for which somebody gives -0 is read at once, and not copied again with each block of it."""
    seconds = []
    for name, text in (("long", b"line\n" * 1_600_000), ("short", (b"x" * 999 + b"\0") * 8_000)):
        (tmp_path / name).write_bytes(text)
        began = time.thread_time()
        deque(Lines([f"{tmp_path}/{name}"], null=True), maxlen=0)
        seconds.append(time.thread_time() - began)
    assert seconds[0] < 5 * seconds[1]


@everywhere
def test_a_checkpoint_that_cannot_be_written_any_more_is_why_it_stopped(here):
    """If the checkpoint cannot be written, the command ends with the summary and the reason, without a traceback."""

    def small():
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    lines = "".join(f"0.{number:03}1\n" for number in range(1000))
    options = ("--key", "item", "--checkpoint", "journal", "--max-workers", "2")
    done = run(here, "tasks:slow", *options, stdin=lines, preexec_fn=small)
    assert "\nstopped: the checkpoint " in done.stderr
    assert "could not be written: OperationalError: disk I/O error; not done: " in done.stderr
    assert "_command/_run.py" not in done.stderr
    assert 1 == done.returncode


@everywhere
def test_a_key_that_fails_or_comes_twice_is_named(here):
    """A key that fails or comes twice ends the run and is named; earlier outcomes are written."""
    done = run(here, "tasks:scaled", "--key", "int(item)", stdin="1\nx\n")
    assert {1: 10} == values_of(done.stdout)
    assert "argument --key: raised ValueError for the item at position 1: invalid literal" in done.stderr
    assert 1 == done.stderr.count("ValueError")
    assert 1 == done.returncode

    done = run(here, "tasks:slow", "--key", "item", stdin="0.1\n0.1\n")
    assert "argument --key: must be unique, got '0.1' at positions 0 and 1" in done.stderr
    assert 1 == done.returncode

    done = run(here, "tasks:scaled", "--rate", "10/1s", "--by", "int(item)", stdin="x\n")
    assert "argument --by: raised ValueError for the item at position 0: invalid literal" in done.stderr
    assert 1 == done.returncode


@pytest.mark.parametrize(
    ("read", "text"),
    [
        *((seconds, text) for text in ["", "0", "-1", "5 parsecs", "inf", "nan", "s"]),
        *((rate, text) for text in ["", "10", "10/", "0/1s", "1.5/1s", "10/0s", "10/1s/1s", "x/1s"]),
        *((at_least(1), text) for text in ["0", "-1", "1.5", "two", ""]),
        *((failures, text) for text in ["0", "1.0", "1.5", "0%", "100%", "-1", "some", "0.0", "nan"]),
        *((expression, text) for text in ["", "item[", "a = 1", "item; item", "item) + (1"]),
    ],
)
def test_what_an_option_cannot_be(read, text):
    """Bad values of options are refused, with the rule and the value."""
    from argparse import ArgumentTypeError

    with pytest.raises(ArgumentTypeError, match="must be"):
        read(text)


@pytest.mark.all
def test_summary_is_bounded():
    """However many kinds of failures there are, the summary keeps and shows only a few."""
    tally = Tally()
    kinds = [type(f"Error{number}", (Exception,), {}) for number in range(999)]
    for number, kind in enumerate([*kinds, kinds[0]]):
        tally.count(Failure(number, number, kind("\x1b" * 1000), 1, 0.0, 0.0, 0.1, "thread 1"))
    tally.count(Success("a", 0, 1, 3, 0.0, 0.0, 0.1, "thread 1"))
    lines = list(tally.summary(2.0, "max_failures", 1001, colour=False))
    assert all(line.isprintable() for line in lines)
    assert len(lines) <= 8
    assert "1,001 tasks in 2.00 s: 1 succeeded, 1,000 failed, 2 retries" == lines[0]
    assert "stopped: max_failures" == lines[1]
    assert len(tally.kinds) <= 201
    assert 2 == next(iter(tally.kinds.values())).failed


def test_the_summary_names_the_most_frequent_kinds_of_failure():
    """Each with its number and the first few keys; what differs in a number only is of one kind."""
    tally = Tally()
    for number, letter in enumerate("abcdefg"):
        for key in range(number + 1):
            tally.count(Failure(key, 0, OSError(f"{letter} refused {key}"), 1, 0.0, 0.0, 0.1, "thread 1"))
    shown = list(tally.summary(0.5, None, 28, colour=False))
    assert [
        "  7 × OSError: g refused 0  (key 0, 1, 2, …)",
        "  6 × OSError: f refused 0  (key 0, 1, 2, …)",
        "  5 × OSError: e refused 0  (key 0, 1, 2, …)",
        "  4 × OSError: d refused 0  (key 0, 1, 2, …)",
        "  3 × OSError: c refused 0  (key 0, 1, 2)",
        "  and 2 further kinds of failure",
    ] == shown[1:]


def test_the_summary_tells_what_was_known_from_what_was_tried():
    """What the checkpoint had takes nothing off the retries, and a line that is no JSON was not in it."""
    tally = Tally()
    for attempts, worker in ((0, "checkpoint"), (0, "checkpoint"), (2, "thread 1"), (0, "input")):
        tally.count(Success("a", 0, 1, attempts, 0.0, 0.0, 0.1, worker))
    assert "4 succeeded, 0 failed, 2 from the checkpoint, 1 retry" in next(
        tally.summary(2.0, None, 4, colour=False)
    )


@pytest.mark.parametrize(
    ("begun", "read", "said"),
    [
        (2, 7, "; not done: 2 that had begun and 4 that had not"),
        (2, 3, "; not done: 2 that had begun"),
        (0, 7, "; not done: 6 that had not begun"),
        (0, 1, ""),
        (2, None, "; not done: 2 that had begun and the rest of the input"),
        (0, None, "; not done: the rest of the input"),
    ],
)
def test_what_was_only_read_ahead_is_no_task_of_a_run_that_was_stopped(begun, read, said):
    """Tasks that were only read ahead are not counted after a stop, unless the input was read to its end."""
    tally = Tally()
    tally.count(Success("a", 0, 1, 1, 0.0, 0.0, 0.1, "thread 1"))
    for index in range(1, 4):
        tally.count(
            Failure(index, index, TaskCancelled("stopped"), int(index <= begun), 0.0, None, 0.0, None)
        )
    lines = list(tally.summary(2.0, "interrupted", read, colour=False))
    assert ["1 task in 2.00 s: 1 succeeded, 0 failed", f"stopped: interrupted{said}"] == [
        lines[0].partition(";")[0],
        lines[1],
    ]


@everywhere
@pytest.mark.parametrize("executor", ["threads", "inline"])
def test_the_reason_of_a_stop_is_said_where_nothing_was_read_ahead(here, executor):
    """The reason for a stop is shown, even if it has cancelled no task."""
    done = run(here, "tasks:scaled", "--executor", executor, "--max-failures", "1", stdin="x\n" * 5)
    assert "1 task in" in done.stderr
    assert "stopped: max_failures of 1 reached; not done: " in done.stderr
    assert 1 == done.returncode


def test_the_summary_tells_a_width_that_says_something():
    """The summary leaves out the parallelism of tasks that a limit has held apart, which would be close to nothing."""

    def line(duration, wall=2.0):
        tally = Tally()
        tally.count(Success("a", 0, 1, 1, 0.0, 0.0, duration, "thread 1"))
        return next(tally.summary(wall, None, 1, colour=False))

    assert "1 task in 2.00 s: 1 succeeded, 0 failed; ran 0.50 at a time" == line(1.0)
    assert "1 task in 2.00 s: 1 succeeded, 0 failed" == line(0.004)
    assert "1 task in 500 ms: 1 succeeded, 0 failed" == line(0.4, wall=0.5)  # mostly the start of workers


def test_help_shows_examples_that_parse(capsys):
    """The parser accepts every example command of --help."""
    import shlex

    from parallelkit._cli import EXAMPLES, make_parser

    commands = EXAMPLES.replace("\\\n", " ").splitlines()
    shown = [line.partition("parallelkit ")[2] for line in commands if "parallelkit run" in line]
    assert 4 == len(shown)
    for line in shown:
        words = shlex.split(line.partition(" | ")[0])
        assert "run" == words[0]
        make_parser().parse_args(words)
