import os
import re
import resource
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from parallelkit import RemoteError, TaskTimeout
from parallelkit._cli import main
from parallelkit._command import _doctor

ROOT = Path(__file__).parent.parent


def test_healthy(capsys):
    """Here everything works: processors, both kinds of worker, a kill, the packages, the system; exit code 0."""
    assert 0 == main(["doctor"])
    said = capsys.readouterr().out
    assert "FAIL" not in said
    for word in (
        "usable",
        "affinity",
        "cgroup",
        "threads:",
        "processes:",
        "killed",
        "cloudpickle",
        "requests",
        "pidfd",
    ):
        assert word in said
    assert said.endswith("all that is needed works\n")


def test_broken_workers_are_code_1(monkeypatch, capsys):
    """What does not work is marked, with the reason, and the exit code says so."""

    def broken():
        raise RemoteError("no process can be started here")

    for name in ("work_in_processes", "work_in_threads", "kill_one"):
        monkeypatch.setattr(_doctor, name, broken)
    assert 1 == main(["doctor"])
    assert 3 == capsys.readouterr().out.count("no process can be started here")


def test_broken_workers_are_found_without_asserts():
    """Also where Python drops every assert: a task that failed, or gave a wrong value, is no worker that works."""
    script = "import parallelkit._command._doctor as doctor\n"
    script += "doctor.run_parallel = lambda *given, **options: {0: 1, 1: 3}\n"
    script += "print([fine for fine, text in doctor.workers()])"
    run = subprocess.run(
        [sys.executable, "-O", "-c", script], capture_output=True, text=True, check=True, timeout=55
    )
    assert "[False, False, False]\n" == run.stdout


@pytest.mark.parametrize(
    ("package", "mark", "cure"),
    [("tqdm", "FAIL", "pip install tqdm"), ("joblib", "-   ", "pip install 'parallelkit[joblib]'")],
)
def test_missing_packages_are_named(monkeypatch, package, mark, cure):
    """With the command that brings them; only the core's are a fault."""
    monkeypatch.setattr(_doctor, "version_of", lambda name: None if name == package else "1.0")
    found = {text: fine for fine, text in _doctor.packages() if "missing" in text}
    assert {f"{package} missing: {cure}": False if mark == "FAIL" else None} == found


def test_a_python_without_sqlite3_is_told_from_others(monkeypatch):
    """Only a checkpoint needs it."""
    assert not any("sqlite3" in text for _, text in _doctor.packages())
    monkeypatch.setattr(_doctor, "find_spec", lambda name: None)
    assert [None] == [fine for fine, text in _doctor.packages() if "sqlite3 missing" in text]


def test_the_core_is_what_pyproject_says():
    """The packages that are always needed are those which the project depends on."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = dict.fromkeys(re.match(r"[\w.-]+", each)[0] for each in project["dependencies"])
    assert [*_doctor.CORE] == [*needed]


def test_copies_that_were_not_installed_are_examined_as_well(monkeypatch):
    """A checkout, or copies in another project or a zip file, have no metadata: what can be imported is not missing."""

    def from_name(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata.Distribution, "from_name", from_name)
    found = dict(reversed(finding) for finding in _doctor.packages())
    assert found["cloudpickle of a version that is not recorded"]
    assert False not in found.values()


def test_elsewhere_than_on_linux_it_says_what_can_be_had(monkeypatch):
    """Threads and coroutines; it asks for nothing that only Linux has, and speaks of no worker processes as of some that work."""
    monkeypatch.setattr(_doctor.sys, "platform", "darwin")
    monkeypatch.delattr(_doctor.os, "pidfd_open")
    said = {text: fine for fine, text in _doctor.system()}
    assert said["darwin: threads and coroutines should work, untested; processes need Linux"] is None
    assert False not in said.values()


def test_a_process_that_hangs_and_is_not_killed_is_no_worker_that_works(monkeypatch):
    """A timeout alone does not end it."""
    failure = SimpleNamespace(error=TaskTimeout("it went on"), duration=0.2)
    monkeypatch.setattr(
        _doctor, "run_parallel", lambda *given, **options: SimpleNamespace(failures=[failure])
    )
    ((fine, text),) = _doctor.proven("killed", _doctor.kill_one)
    assert (False, "killed; TaskTimeout: it went on") == (fine, text)


def test_what_is_scarce_is_noted(monkeypatch):
    """Docker's default of shared memory, and a number of open files that does for few workers only."""
    monkeypatch.setattr(
        os, "statvfs", lambda path: SimpleNamespace(f_bavail=1, f_blocks=1, f_frsize=64 << 20)
    )
    monkeypatch.setattr(resource, "getrlimit", lambda what: (255, 4096))
    small = "/dev/shm 64 MiB free of 64; small: in a container, give it more with --shm-size"
    assert (None, small) == _doctor.shared_memory()
    few = "255 open files at most: too few for many workers; see ulimit -n (up to 4096)"
    assert (None, few) == _doctor.open_files()


@pytest.mark.parametrize(("group", "noted"), [("1\n", 1), ("0\n", 0), (None, 0)])
def test_a_container_that_ends_as_a_whole_is_noted(monkeypatch, group, noted):
    """Kubernetes has the kernel end all its processes when memory runs out, so that a worker's end is the program's."""

    def read(path):
        assert "/sys/fs/cgroup/memory.oom.group" == path
        if group is None:
            raise FileNotFoundError(path)
        return group

    monkeypatch.setattr(_doctor, "read", read)
    assert noted == len([*_doctor.ended_together()])


@pytest.mark.all
def test_a_machine_that_is_too_small_is_found_out():
    """Where so few files may be open that no worker process can be started, that is what it says; code 1."""
    limit = (resource.RLIMIT_NOFILE, (10, 10))
    run = subprocess.run(
        [sys.executable, "-m", "parallelkit", "doctor"],
        capture_output=True, text=True, timeout=55, check=False, preexec_fn=lambda: resource.setrlimit(*limit),
    )  # fmt: skip
    assert 1 == run.returncode
    assert "FAIL  processes" in run.stdout
    assert 2 == run.stdout.count("no worker process can be started")
    assert "ok    threads" in run.stdout
    assert "10 open files at most" in run.stdout
    assert "Traceback" not in run.stderr
