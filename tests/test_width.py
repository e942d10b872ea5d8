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
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert cpus == _width.usable_cpus()


def test_usable_cpus_are_what_python_cpu_count_says(monkeypatch):
    """Where Python has ``PYTHON_CPU_COUNT``, which sets the width of its own pools, it sets that of ours."""
    monkeypatch.setattr(_width, "cgroup_quota", lambda: None)
    monkeypatch.setattr(_width, "_quota", (-inf, None))
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr("os.process_cpu_count", lambda: 3, raising=False)
    assert 3 == _width.usable_cpus()
