"""The package as users get it: built from what is under version control, installed where nothing else is."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.all, pytest.mark.slow]

ROOT = Path(__file__).parent.parent
PIP = ["-m", "pip", "--disable-pip-version-check", "--no-input"]
MOST = 3  # packages that the core may bring
LIMIT = 55  # seconds, less than a test may take (setup.cfg)


def call(*argv, cwd=None, code=0):
    """Run a program that must end with this exit code; what it printed, and its errors."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")
    }
    done = subprocess.run(
        argv, capture_output=True, text=True, cwd=cwd, env=environment, timeout=LIMIT, check=False
    )  # fmt: skip
    if "No matching distribution" in done.stderr or "Failed to establish a new connection" in done.stderr:
        pytest.skip(f"needs a package index: {done.stderr.strip().splitlines()[-1]}")
    assert code == done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("package")


@pytest.fixture(scope="module")
def builder(place):
    """The interpreter of an environment with the build backend."""
    call(sys.executable, "-m", "venv", str(place / "builder"))
    python = str(place / "builder/bin/python")
    call(python, *PIP, "install", "-q", "setuptools>=77")
    return python


@pytest.fixture(scope="module")
def sdist(builder, place):
    """Built from a copy of the files that are under version control, and of no others."""
    source = place / "source"
    for name in call("git", "ls-files", "-z", cwd=ROOT).split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    build = "from setuptools import build_meta; build_meta.build_sdist('dist')"
    call(builder, "-W", "ignore", "-c", build, cwd=source)
    [archive] = (source / "dist").glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(builder, sdist, place):
    """Built from the sdist, which must therefore be whole."""
    options = ("--no-deps", "--no-build-isolation", "-w", str(place / "wheels"))
    call(builder, *PIP, "wheel", "-q", *options, str(sdist))
    [archive] = (place / "wheels").glob("*.whl")
    return archive


@pytest.fixture(scope="module")
def python(wheel, place):
    """The interpreter of an environment in which the wheel was installed, and what it needs."""
    empty = place / "empty"
    call(sys.executable, "-m", "venv", str(empty))
    call(str(empty / "bin/python"), *PIP, "install", "-q", str(wheel))
    return str(empty / "bin/python")


def test_the_sdist_has_all_that_is_needed_to_build(sdist):
    """Every file of the package, and what the build reads; no tests, which could not run without all their files."""
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {*files_of_the_package(), "pyproject.toml", "README.md", "LICENSE"} <= held
    assert not [name for name in held if name.startswith("tests/")]


def test_the_wheel_is_the_package(wheel):
    """Every file of the package, among them the mark of typed code, the page and the worker; nothing beside it."""
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert files_of_the_package() == {name for name in packed if ".dist-info/" not in name}
    assert {
        "parallelkit/py.typed",
        "parallelkit/_report/page.html",
        "parallelkit/_worker/__main__.py",
    } < packed
    assert any(name.endswith("licenses/LICENSE") for name in packed)


def files_of_the_package():
    return set(call("git", "ls-files", "parallelkit", cwd=ROOT).split())


def test_the_core_brings_three_packages_at_most(python):
    """What the package asks for, and nothing that these ask for; the rest of an environment is pip's own."""
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[^\w.-]", one)[0] for one in asked}
    listed = call(python, *PIP, "list", "--format", "freeze").split()
    assert names | {"parallelkit"} == {line.partition("==")[0] for line in listed} - {"pip", "setuptools"}
    assert len(names) <= MOST


def test_it_works_where_nothing_else_is(python, tmp_path):
    """Threads, processes, a script's own functions, the pictures, the command line."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            from parallelkit import run_parallel
            results = run_parallel(lambda n: 12 // n, range(3), executor="processes", progress=True)
            print(results.values(default=None), run_parallel(abs, [-1]).values())
            print(results.report().splitlines()[0])
            results.save_html("run.html")
            results.save_trace("run.json")
            """
        )
    )
    said = call(python, str(script), cwd=tmp_path)
    assert "[None, 12, 6] [1]" in said
    assert "3 tasks: 2 succeeded, 1 failed" in said
    assert "</html>" in (tmp_path / "run.html").read_text()

    command = str(Path(python).with_name("parallelkit"))
    assert call(command, "--version").startswith("parallelkit 0.")
    assert "pip install 'parallelkit[http]'" in call(command, "doctor")
    (tmp_path / "lines").write_text("1\n2\n")
    assert 2 == call(command, "run", "builtins:int", "lines", "--quiet", cwd=tmp_path).count('"ok": true')


@pytest.mark.parametrize(
    ("code", "install"),
    [
        (
            "from parallelkit.http import fetch; fetch(['http://localhost/'])",
            "pip install 'parallelkit[http]'",
        ),
        ("from parallelkit.joblib_backend import register; register()", "pip install 'parallelkit[joblib]'"),
        ("from parallelkit import run_parallel; run_parallel(abs, [1]).to_frame()", "pip install pandas"),
        (
            "import sys; sys.argv[1:] = ['demo']; import parallelkit.__main__ as m; sys.exit(m.main())",
            "pip install 'parallelkit[http]'",
        ),
    ],
    ids=["http", "joblib", "pandas", "demo"],
)
def test_what_is_missing_is_named(python, code, install):
    """With the command that brings it, in the last line that the user sees."""
    code_of = 2 if "demo" in code else 1
    assert install in call(python, "-c", code, code=code_of).splitlines()[-1]


def test_types_are_found_by_a_type_checker(python, tmp_path):
    """``py.typed`` is there: mypy knows what a run of it gives."""
    (tmp_path / "use.py").write_text(
        "from parallelkit import run_parallel\nreveal_type(run_parallel(len, ['a'])[0])\n"
    )
    said = call(
        sys.executable, "-m", "mypy", "--python-executable", python, "--strict", "use.py", cwd=tmp_path
    )
    assert 'Revealed type is "int"' in said.replace("builtins.int", "int")
