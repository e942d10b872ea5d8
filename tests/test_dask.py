"""A run on a dask cluster: scheduler and workers are processes of their own, on loopback."""

import os
import signal
import time

import pytest
from clusters import opened

from parallelkit import TaskTimeout, WorkerDied, run_parallel


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with opened(tmp_path_factory.mktemp("dask")) as (cluster, client):
        cluster.client = client
        yield cluster


@pytest.fixture
def client(cluster):
    return cluster.client


def square(number):
    return number * number


def test_a_run_is_the_same_as_on_one_machine(client):
    """Values come back by key, in order, computed by processes beside the dask workers."""
    results = run_parallel(lambda number: (number * number, os.getpid()), range(30), executor=client, key=str)
    assert [number * number for number in range(30)] == [value for value, _ in results.values()]
    pids = {pid for _, pid in results.values()}
    assert os.getpid() not in pids
    assert not pids & set(client.run(os.getpid).values())


def test_each_failure_is_its_tasks_own(client):
    """An error, an exit, a signal and a timeout cost one task each; who ran it, where, is told."""

    def act(deed):
        if deed == "raise":
            raise KeyError(deed)
        if deed == "exit":
            os._exit(3)
        if deed == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if deed == "hang":
            time.sleep(60)
        return deed

    deeds = ["raise", "exit", "kill", "hang", *map(str, range(20))]
    results = run_parallel(act, deeds, executor=client, key=str, timeout=2)
    assert list(map(str, range(20))) == list(results.successes)
    errors = {key: failure.error for key, failure in results.failures.items()}
    assert [KeyError, WorkerDied, WorkerDied, TaskTimeout] == list(map(type, errors.values()))
    assert (3, signal.SIGKILL) == (errors["exit"].exitcode, errors["kill"].signal)
    host = os.uname().nodename
    assert host in str(errors["exit"])
    assert f"process {errors['exit'].pid} on {host}" == results.failures["exit"].worker
    assert errors["hang"].killed
    assert 2 == len(client.nthreads()), "no dask worker died of it"
