"""Executors of other libraries, as they are: what works on them, and what they cannot promise."""

import os
import shutil
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager

import pytest
from clusters import opened
from patience import wait_until

from parallelkit import Retry, TaskTimeout, run_parallel

pytestmark = pytest.mark.all


@contextmanager
def loky_pool(folder):
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(2) as pool:
        assert [0] * 8 == list(pool.map(abs, [0] * 8))  # by now it has all that it starts with
        yield pool, {}


@contextmanager
def dask_executor(folder):
    with opened(folder) as (_, client):
        yield client.get_executor(), {"max_workers": 2}


@contextmanager
def ipyparallel_view(folder):
    ipyparallel = pytest.importorskip("ipyparallel", reason="ipyparallel is not installed")
    cluster = ipyparallel.Cluster(n=2, controller_ip="127.0.0.1", log_level=40, cluster_id=folder.name)
    with cluster as client:
        client.wait_for_engines(2, timeout=60)
        yield client.load_balanced_view().executor, {"max_workers": 2}


POOLS = {"loky": loky_pool, "Client.get_executor()": dask_executor, "ipyparallel": ipyparallel_view}


@pytest.fixture(scope="module", params=POOLS)
def pool(request, tmp_path_factory):
    with POOLS[request.param](tmp_path_factory.mktemp("pool")) as (pool, options):
        yield request.param, pool, options


def test_values_and_errors_come_back_by_key(pool):
    """Values and errors, even of closures, come by key, with the user's own error and its traceback."""
    _, executor, options = pool

    def invert(number):
        return 1 / number

    results = run_parallel(invert, range(5), executor=executor, **options)
    assert {n: 1 / n for n in range(1, 5)} == dict(results.successes)
    assert isinstance(results.failures[0].error, ZeroDivisionError)
    assert "in invert" in results.failures[0].traceback


def test_what_the_parent_decides_works_anywhere(pool, tmp_path):
    """Retries and priorities work on any pool."""
    _, executor, options = pool

    def second_time(mark):
        if not os.path.exists(mark):
            open(mark, "w").close()
            raise OSError("not yet")
        return "done"

    results = run_parallel(
        second_time, [str(tmp_path / "mark")], executor=executor, retries=Retry(1, delay=0), **options
    )
    assert ["done"] == results.values()


def test_equal_items_are_run_each(pool, tmp_path):
    """Equal items are each run, although dask by default treats functions as pure and runs equal calls once."""
    _, executor, options = pool

    def mark(folder):
        open(f"{folder}/{time.monotonic_ns()}-{os.getpid()}", "w").close()

    run_parallel(mark, [str(tmp_path)] * 4, executor=executor, **options)
    assert 4 == len(list(tmp_path.iterdir()))


def test_an_overdue_task_is_reported_and_runs_on(pool, tmp_path):
    """An overdue task is reported, but no such pool can end it: its slot is busy until it returns."""
    _, executor, options = pool
    mark = tmp_path / "ended"

    def oversleep(path):
        time.sleep(0.6)
        open(path, "w").close()

    results = run_parallel(oversleep, [str(mark)], executor=executor, timeout=0.2, **options)
    error = results.failures[0].error
    assert isinstance(error, TaskTimeout)
    assert not error.killed
    wait_until(mark.exists)  # it was not ended after all


CRASH = """
    import os
    from loky import ProcessPoolExecutor
    from parallelkit import WorkerDied, run_parallel

    def crash_at_two(number):
        if number == 2:
            os._exit(1)
        return number

    with ProcessPoolExecutor(2) as pool:
        results = run_parallel(crash_at_two, range(40), executor=pool)
    errors = [failure.error for failure in results.failures.values()]
    died = [error for error in errors if isinstance(error, WorkerDied)]
    print(1 <= len(died) <= 2, all(error.may_have_run for error in died), results.stopped is not None)
"""


def test_a_crash_may_have_cost_what_was_in_flight(tmp_path):
    """When a pool such as loky's breaks, tasks in flight may have run, and the run ends."""
    script = tmp_path / "crash.py"
    script.write_text(textwrap.dedent(CRASH))
    said = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert "True True True" == said.stdout.strip(), said.stderr


MPI = """
    from mpi4py.futures import MPIPoolExecutor
    from parallelkit import run_parallel

    if __name__ == "__main__":
        with MPIPoolExecutor(2) as pool:
            results = run_parallel(lambda n: 1 / n, range(4), executor=pool, max_workers=2)
            print(len(results.successes), type(results.failures[0].error).__name__)
"""


EVERYWHERE = {  # what Open MPI asks for to start three processes on two cores, and in a container's only account
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}


def test_mpi_passes_through(tmp_path):
    """A run works under mpiexec, as mpi4py needs it."""
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    mpiexec = shutil.which(
        "mpiexec", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    )
    if mpiexec is None:
        pytest.skip("no MPI is installed: there is no mpiexec")
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(MPI))
    command = [mpiexec, "-n", "3", sys.executable, "-m", "mpi4py.futures", script]
    env = os.environ | EVERYWHERE
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)
    assert "3 ZeroDivisionError" == said.stdout.strip(), said.stderr
