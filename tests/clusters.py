"""Small dask clusters for tests: a scheduler and workers on loopback, each in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from patience import PATIENCE, wait_until

HERE = Path(__file__).parent
SURROUNDINGS = {
    "PYTHONPATH": f"{HERE}:{HERE.parent}",  # the functions of the tests, and the package of this checkout
}


class Cluster:
    """A running scheduler. ``add_worker`` adds a worker, ``kill`` ends one, and ``close`` ends everything.

    ``prefix`` goes before the command line of a process, for instance to run it in another network namespace.
    """

    def __init__(self, folder: Path, host: str = "127.0.0.1", prefix: Sequence[str] = (), **env: str) -> None:
        self._folder = folder
        self._file = folder / "scheduler.json"
        self._env = {**os.environ, **SURROUNDINGS, **env}
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        options = ["--port", "0", "--dashboard-address", f"{host}:0", "--no-show"]
        self.scheduler = self._start([*prefix, sys.executable], host, "dask_scheduler", *options)
        try:
            wait_until(self._is_written)
        except BaseException:
            self.close()
            raise
        self.address: str = json.loads(self._file.read_text())["address"]

    def _is_written(self) -> bool:
        return self._file.exists() and self._file.read_text().rstrip().endswith("}")

    def _start(
        self, command: Sequence[str], host: str, module: str, *options: str, **env: str
    ) -> subprocess.Popen[bytes]:
        common = ["--scheduler-file", str(self._file), "--host", host]
        with (self._folder / f"{module}.log").open("ab") as log:
            return subprocess.Popen(
                [*command, "-m", f"distributed.cli.{module}", *options, *common],
                stdout=log,
                stderr=log,
                env={**self._env, **env},
                start_new_session=True,
            )

    def add_worker(
        self,
        name: str,
        *,
        threads: int = 1,
        python: str = sys.executable,
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
        **env: str,
    ) -> None:
        """Start a worker without a nanny, and do not wait until it has joined."""
        options = ["--nthreads", str(threads), "--name", name, "--no-dashboard", "--no-nanny"]
        options += ["--local-directory", str(self._folder)]
        self.workers[name] = self._start([*prefix, python], host, "dask_worker", *options, **env)

    def kill(self, name: str) -> None:
        """End a worker with SIGKILL, as if its node had lost power."""
        process = self.workers.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def log(self) -> str:
        return "\n".join(path.read_text() for path in self._folder.glob("*.log"))

    def close(self) -> None:
        processes = [*self.workers.values(), self.scheduler]
        for process in processes:
            process.send_signal(signal.SIGKILL)
        for process in processes:
            process.wait()


@contextmanager
def opened(folder: Path, workers: int = 2, threads: int = 1) -> Iterator[tuple[Cluster, Any]]:
    """A cluster whose workers, named 0, 1, ..., have all joined, and a client of it."""
    from distributed import Client

    cluster = Cluster(folder)
    try:
        for number in range(workers):
            cluster.add_worker(str(number), threads=threads)
        with Client(cluster.address, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=PATIENCE)
            client.sync(fill_pool, client)
            yield cluster, client
    finally:
        cluster.close()


async def fill_pool(client: Any) -> None:
    """Make the client open the connections that it will keep, so that none of them counts as a leak of a test."""
    pool, address = client.scheduler.pool, client.scheduler.addr
    comms = await asyncio.gather(*(pool.connect(address) for _ in range(12)))
    for comm in comms:
        pool.reuse(address, comm)
