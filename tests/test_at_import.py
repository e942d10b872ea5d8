"""Who would be imported, or started, by workers again and again; and what else happens where they import modules."""

import functools
import json
import shutil
import subprocess
import sys
import zipapp
from fractions import Fraction
from pathlib import Path

import pytest

import parallelkit
from parallelkit._executors._process._at_import import modules_in
from parallelkit._executors._process._spawn import ENTRY
from parallelkit._worker._travel import pack

RUNS_AS_IT_IS_IMPORTED = """
from parallelkit import Task, run_parallel
{function}
results = run_parallel({given}, executor="processes", max_workers=2)
errors = [failure.error for failure in results.failures.values()]
"""


@pytest.mark.all
@pytest.mark.parametrize("package", [False, True])
@pytest.mark.parametrize(
    "given",
    [
        "work, range(2)",
        "[work, work]",
        "(Task(work) for _ in range(2))",
        "[Task(work, item) for item in (1, 2)]",
        "[Task(work, item, key=item) for item in 'ab']",
    ],
)
def test_a_module_whose_import_starts_workers_that_import_it_is_refused_there(tmp_path, package, given):
    """Each of them would start as many more, without end; the module may be in the package that does so."""
    function = "def work(item=0): return list(map(repr, __import__('outer').errors))\n"  # those of the worker
    if package:
        (tmp_path / "outer").mkdir()
        (tmp_path / "outer" / "inner.py").write_text(function)
        text = RUNS_AS_IT_IS_IMPORTED.format(function="from outer.inner import work", given=given)
        (tmp_path / "outer" / "__init__.py").write_text(text)
    else:
        (tmp_path / "outer.py").write_text(RUNS_AS_IT_IS_IMPORTED.format(function=function, given=given))
    look = "import outer; print(outer.errors, outer.results.to_dict(default=None))"
    done = subprocess.run(
        [sys.executable, "-c", look], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    home = "outer.inner" if package else "outer"
    said = done.stdout.replace("\\", "")
    assert said.count(f"AtImportError(\"module '{home}' starts worker processes") >= 2, done


NEEDED_BY_OTHERS = """
import functools, common
from parallelkit import ProcessExecutor, run_parallel
def work(item=0): return list(map(str, __import__('outer').errors))  # those of the worker
cached = functools.lru_cache(work)
class Item:
    def __call__(self): return work()
errors = []
try:
    results = {run}
except RuntimeError as error:
    errors.append(error)
else:
    errors += [failure.error for failure in results.failures.values()]
"""


@pytest.mark.parametrize(
    "run",
    [
        "run_parallel(cached, range(2), executor='processes', max_workers=2)",
        "run_parallel(lambda _: work(), range(2), executor='processes', max_workers=2)",
        "run_parallel(common.call, [work, Item()], executor='processes', max_workers=2)",
        "run_parallel(common.call, [work], executor=ProcessExecutor(2, initializer=cached))",
    ],
)
@pytest.mark.all
def test_whatever_else_of_a_module_workers_need_as_it_is_imported_is_refused_there(tmp_path, run):
    """What they are given may be of it although the function is not: there were thirty processes after two seconds."""
    (tmp_path / "common.py").write_text("def call(one, *more): return (one or more[0])()\n")
    (tmp_path / "outer.py").write_text(NEEDED_BY_OTHERS.format(run=run))
    look = "import outer; print(outer.errors, list(outer.results.successes.values()))"
    done = subprocess.run(
        [sys.executable, "-c", look], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert "module 'outer' starts worker processes" in done.stdout, done


def test_modules_that_a_pickle_needs_are_those_of_the_things_that_it_names():
    """Not those whose names are texts in it, however long it is."""
    things = [Fraction(1), "json", functools.partial(json.loads), json.dumps, ("os", "path")]
    named = {"fractions", "functools", "json"}
    assert named == modules_in(pack(things))
    assert named == modules_in(pack([list(map(str, range(100_000))), *things]))
    texts = [f"{number:0100}" for number in range(635)]
    for length in range(150):  # a pickle is cut into frames, maybe between the two names
        assert {"json"} == modules_in(pack([*texts, "x" * length, json.loads]))
    assert set() == modules_in(pack([1, None, "json"]))


def test_a_module_may_run_functions_of_others_as_it_is_imported(tmp_path):
    """Also in workers that import it for functions of its own."""
    (tmp_path / "far.py").write_text("def double(item): return 2 * item\n")
    (tmp_path / "near.py").write_text(
        "import far\nfrom parallelkit import run_parallel\n"
        "table = run_parallel(far.double, range(3), executor='processes').values()\n"
        "def look(item): return table[item]\n"
    )
    look = "import near; print(near.run_parallel(near.look, range(3), executor='processes').values())"
    done = subprocess.run(
        [sys.executable, "-c", look], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "[0, 2, 4]\n" == done.stdout, done


HOST = """
import os, sys
{says}
from parallelkit import run_parallel
def attempt():
    try:
        print(run_parallel(abs, [-1], executor="processes").stopped)
    except Exception as error:
        print(error)
attempt()
sys.executable = "/no/such/python"
attempt()
"""


@pytest.mark.parametrize(
    ("says", "cure"),
    [("sys.frozen = True", "use executor='threads'"), ("sys.orig_argv.clear()", "set it to the path of one")],
    ids=["frozen", "embeds"],
)
def test_a_program_that_has_python_in_it_is_not_started_again_as_its_worker(says, cure, tmp_path):
    """It would start as many more, without end: 69 processes after three seconds. Another interpreter may be named."""
    (tmp_path / "script.py").write_text(HOST.format(says=says))
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=60, check=False
    )
    refused, tried = done.stdout.splitlines()
    assert f"this program itself, which would be started again: {cure}" in refused
    assert "itself" not in tried
    assert "/no/such/python" in tried


def test_a_program_that_was_started_as_a_worker_starts_none(tmp_path):
    """One that has Python in it and looks like an interpreter: it has come by what a worker is told to run."""
    (tmp_path / "script.py").write_text(HOST.format(says=""))
    command = [sys.executable, tmp_path / "script.py", ENTRY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert 2 == done.stdout.count("this program itself, which would be started again"), done


@pytest.mark.all
def test_a_program_that_has_the_package_in_an_archive_is_told_so(tmp_path):
    """A zipapp: its workers would find no file to run, and each say so on stderr."""
    target = tmp_path / "app"
    shutil.copytree(Path(parallelkit.__file__).parent, target / "parallelkit")
    (target / "__main__.py").write_text(
        "from parallelkit import run_parallel\n"
        "try:\n    run_parallel(abs, [-1], executor='processes')\n"
        "except RuntimeError as error:\n    print(error, *run_parallel(abs, [-1]).values())\n"
    )
    zipapp.create_archive(target)
    done = subprocess.run(
        [sys.executable, tmp_path / "app.pyz"], capture_output=True, text=True, timeout=60, check=False
    )
    assert "" == done.stderr
    assert "have it installed unpacked, not in an archive" in done.stdout
    assert done.stdout.endswith(" 1\n")


ASKED_BY_TWO_THREADS = """
from parallelkit import run_parallel

def look(_):
    import sys, threading
    errors = []

    def ask():
        try:
            from parallelkit import Retry
        except ImportError as error:
            errors.append(str(error))

    other = threading.Thread(target=ask)

    def meanwhile(frame, event, arg):
        if frame.f_code.co_filename.endswith("parallelkit/__init__.py") and other.ident is None:
            other.start()
            other.join(0.2)

    sys.setprofile(meanwhile)
    from parallelkit import Task
    sys.setprofile(None)
    other.join()
    return errors

print(*run_parallel(look, [1], executor="processes", max_workers=1).values())
"""


@pytest.mark.all
def test_threads_of_a_task_may_import_from_the_package_at_once(tmp_path):
    """The first has a worker run it, and who asked meanwhile was told that it had no such name."""
    (tmp_path / "script.py").write_text(ASKED_BY_TWO_THREADS)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=60, check=False
    )
    assert ("[]\n", "") == (done.stdout, done.stderr)
