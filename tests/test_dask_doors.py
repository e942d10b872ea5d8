"""Dask workers that do not fit the program: refused within two seconds, and the cluster is well afterwards."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clusters import Cluster
from patience import wait_until

from parallelkit import iter_parallel, run_parallel

pytestmark = pytest.mark.all

HIDDEN = "import sys; sys.modules['parallelkit'] = None"
OLD = "import parallelkit; parallelkit.__version__ = '0.0.9'"
OTHER_PICKLE = "import cloudpickle; cloudpickle.__version__ = '2.0.0'"


@pytest.fixture
def cluster(tmp_path):
    from distributed import Client

    cluster = Cluster(tmp_path)
    try:
        with Client(cluster.address, set_as_default=False) as cluster.client:
            yield cluster
    finally:
        cluster.close()


def misfit(cluster, tmp_path, code):
    """A worker in which something is not as here."""
    folder = tmp_path / "misfit"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    cluster.add_worker("misfit", PYTHONPATH=str(folder))


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (HIDDEN, r"parallelkit \S+ cannot be imported there"),
        (OLD, r"parallelkit is 0\.0\.9 there"),
        (OTHER_PICKLE, r"cloudpickle is 2\.0\.0 there"),
    ],
)
def test_a_worker_that_does_not_fit_is_refused(cluster, tmp_path, code, fault):
    """With its address and what is wrong; others may still use it."""
    misfit(cluster, tmp_path, code)
    cluster.client.wait_for_workers(1)
    check_refused(cluster, fault)


def check_refused(cluster, fault):
    began = time.monotonic()
    with pytest.raises(ValueError, match=rf"the dask worker tcp://127\.0\.0\.1:\d+ does not fit .*{fault}"):
        run_parallel(abs, [1], executor=cluster.client)
    assert time.monotonic() - began < 10  # dask itself would wait for half a minute
    assert 3 == cluster.client.submit(abs, -3).result(timeout=10)


def other_python():
    """An interpreter of another minor version that has distributed; None where there is none."""
    named = os.environ.get("PARALLELKIT_OTHER_PYTHON")
    root = Path(__file__).parent.parent
    for python in [named] if named else sorted(root.glob(".venv-python3.*/bin/python")):
        ask = "import sys, distributed; print(*sys.version_info[:2])"
        answer = subprocess.run(
            [python, "-c", ask], capture_output=True, text=True, check=False
        ).stdout.split()
        if answer and answer != [str(part) for part in sys.version_info[:2]]:
            return str(python)
    return None


def test_another_python_is_refused(cluster):
    """Its minor version is named; dask would crash on the function's bytecode."""
    python = other_python()
    if python is None:
        pytest.skip("no other Python with distributed: neither .venv-python3.* nor PARALLELKIT_OTHER_PYTHON")
    cluster.add_worker("misfit", python=python, PYTHONPATH=str(Path(__file__).parent.parent))
    cluster.client.wait_for_workers(1)
    check_refused(cluster, r"Python is 3\.\d+")


@pytest.mark.parametrize("code", [HIDDEN, OLD])
def test_a_misfit_that_joins_later_gets_nothing(cluster, tmp_path, code):
    """The run goes on with those that fit, and loses no task."""
    cluster.add_worker("good")
    cluster.client.wait_for_workers(1)
    seen = 0
    for outcome in iter_parallel(time.sleep, [0.05] * 60, executor=cluster.client):
        assert outcome.ok
        seen += 1
        if seen == 1:
            misfit(cluster, tmp_path, code)
            wait_until(lambda: len(cluster.client.nthreads()) == 2)
    assert 60 == seen
