"""A dask cluster on hosts of its own: network namespaces with addresses, names and clocks of their own."""

import os
import shutil
import subprocess
import time
from contextlib import ExitStack

import pytest
from clusters import Cluster, fill_pool
from test_dask_nodes import executions, run_and_stop

from parallelkit import WorkerDied, run_parallel

pytestmark = pytest.mark.all

NET = "10.213.47"  # a private net that no other host can reach
AHEAD = 5000  # seconds by which the clock of each node is ahead of the one before


def command(*words):
    return subprocess.run(words, capture_output=True, text=True, check=False)


def why_not():
    """Why there can be no namespaces here; empty where there can."""
    if os.getuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need iproute2"
    probe = command("ip", "netns", "add", "pk-probe")
    command("ip", "netns", "del", "pk-probe")
    if probe.returncode:
        return f"network namespaces cannot be made here: {probe.stderr.strip()}"
    clock = command("unshare", "--uts", "--time", "--monotonic", "1000", "true")
    return f"no time namespaces here: {clock.stderr.strip()}" if clock.returncode else ""


class Hosts:
    """A bridge, which is this host's, and a namespace for each node on it."""

    def __init__(self, stack):
        self._stack = stack
        self._do("link", "add", "pk-bridge", "type", "bridge", undo=("link", "del", "pk-bridge"))
        self._do("addr", "add", f"{NET}.1/24", "dev", "pk-bridge")
        self._do("link", "set", "pk-bridge", "up")

    def _do(self, *words, undo=None):
        done = command("ip", *words)
        assert done.returncode == 0, done.stderr
        if undo:
            self._stack.callback(command, "ip", *undo)

    def add(self, number):
        name, link = f"pk-node{number}", f"pk-link{number}"
        self._do("netns", "add", name, undo=("netns", "del", name))
        pair = ("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
        self._do(*pair, undo=("link", "del", link))
        self._do("link", "set", link, "master", "pk-bridge", "up")
        self._do("-n", name, "addr", "add", f"{NET}.{10 + number}/24", "dev", "eth0")
        self._do("-n", name, "link", "set", "eth0", "up")
        self._do("-n", name, "link", "set", "lo", "up")

    def cut(self, number):
        """As if its cable were drawn: nobody is told."""
        self._do("link", "set", f"pk-link{number}", "down")


def on_node(number):
    """What a command line begins with to run on a node, under the node's name and clock."""
    inside = f'hostname node{number}; exec "$@"'
    return [
        *("ip", "netns", "exec", f"pk-node{number}"),
        *("unshare", "--uts", "--time", "--monotonic", str(AHEAD * number), "--fork", "--kill-child"),
        *("sh", "-c", inside, "sh"),
    ]


@pytest.fixture
def cluster(tmp_path):
    from distributed import Client

    if reason := why_not():
        pytest.skip(reason)
    with ExitStack() as stack:
        hosts = Hosts(stack)
        for number in (0, 1, 2):
            hosts.add(number)
        # Dask notices a silent host after this time; its default is 30 s, and it takes no less than 11.
        cluster = Cluster(tmp_path, f"{NET}.10", on_node(0), DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP="11s")
        stack.callback(cluster.close)
        for number in (1, 2):
            cluster.add_worker(f"node{number}", prefix=on_node(number), host=f"{NET}.{10 + number}")
        client = stack.enter_context(Client(cluster.address, set_as_default=False))
        client.wait_for_workers(2, timeout=30)
        client.sync(fill_pool, client)
        cluster.client, cluster.hosts = client, hosts
        yield cluster


def test_instants_of_other_hosts_are_on_this_clock(cluster):
    """Though their clocks are hours ahead, each by its own."""
    results = run_parallel(where, [0.02] * 40, executor=cluster.client)
    assert {"node1", "node2"} == set(results.values())
    for outcome in results.outcomes.values():
        assert outcome.worker.endswith(f" on {outcome.value}")
        assert 0 <= outcome.started_at <= results.summary.wall
        assert 0.02 <= outcome.duration < 1


def where(nap):
    time.sleep(nap)
    return os.uname().nodename


def test_a_node_that_is_cut_off_costs_what_it_was_running(cluster, tmp_path):
    """Everything else is kept or runs elsewhere, and nothing twice, though the node itself goes on."""
    outcomes = run_and_stop(cluster, tmp_path / "marks", lambda: cluster.hosts.cut(1))
    (failure,) = [outcome for outcome in outcomes.values() if not outcome.ok]
    assert isinstance(failure.error, WorkerDied)
    assert failure.error.may_have_run
    assert "node1" in failure.worker or f"{NET}.11" in failure.worker, (
        "by address where its start had not come"
    )
    assert {1} == {executions(tmp_path / "marks", number) for number in range(16)}
