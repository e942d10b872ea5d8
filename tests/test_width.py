"""How many cpus a program may use: fewer than the machine has, where an affinity or a container's quota says so."""

from math import inf

import pytest

from parallelkit._executors import _width

V2, V1_QUOTA, V1_PERIOD = (
    f"/sys/fs/cgroup/{name}" for name in ("cpu.max", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
)


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 8),
        ({V2: "max 100000"}, 8),
        ({V2: "300000 100000"}, 3),
        ({V2: "150000 100000"}, 2),
        ({V2: "10000 100000"}, 1),
        ({V2: "6400000 100000"}, 8),
        ({V1_QUOTA: "-1\n", V1_PERIOD: "100000\n"}, 8),
        ({V1_QUOTA: "200000\n", V1_PERIOD: "100000\n"}, 2),
    ],
)
def test_usable_cpus_are_those_of_the_affinity_and_the_quota(monkeypatch, files, cpus):
    """Of eight cpus that the affinity allows, a cgroup's quota, of either version, leaves so many; at least one."""

    def read(path):
        try:
            return files[path]
        except KeyError:
            raise FileNotFoundError(path) from None

    monkeypatch.setattr(_width, "read", read)
    monkeypatch.setattr(_width, "_quota", (-inf, None))
    monkeypatch.delattr("os.process_cpu_count", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", {0: set(range(8))}.get, raising=False)
    assert cpus == _width.usable_cpus()


def test_usable_cpus_are_what_python_cpu_count_says(monkeypatch):
    """Where Python has ``PYTHON_CPU_COUNT``, which sets the width of its own pools, it sets that of ours."""
    monkeypatch.setattr(_width, "cgroup_quota", lambda: None)
    monkeypatch.setattr(_width, "_quota", (-inf, None))
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr("os.process_cpu_count", lambda: 3, raising=False)
    assert 3 == _width.usable_cpus()


def test_the_quota_is_read_once_a_second(monkeypatch):
    """Its file is not read anew for each run that comes soon after another; later, it may have changed."""
    times, quotas = iter([0.0, 0.0, 0.5, 1.0, 1.0, 1.9]), iter([3.0, 2.0])
    monkeypatch.setattr(_width, "monotonic", lambda: next(times))
    monkeypatch.setattr(_width, "cgroup_quota", lambda: next(quotas))
    monkeypatch.setattr(_width, "_quota", (-inf, None))
    monkeypatch.setattr(_width, "_allowed_cpus", lambda: 8)
    assert [3, 3, 2, 2] == [_width.usable_cpus() for _ in range(4)]


@pytest.mark.parametrize(("known", "cpus"), [(6, 6), (None, 1)])
def test_where_there_is_no_affinity_all_cpus_may_be_used(monkeypatch, known, cpus):
    """Elsewhere than on Linux; one where the system does not tell how many there are."""
    monkeypatch.delattr("os.process_cpu_count", raising=False)
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: known)
    assert cpus == _width._allowed_cpus()


def test_where_python_does_not_know_how_many_cpus_there_are_one_is_used(monkeypatch):
    """The same with the function of Python 3.13."""
    monkeypatch.setattr("os.process_cpu_count", lambda: None, raising=False)
    assert 1 == _width._allowed_cpus()
