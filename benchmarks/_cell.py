"""The parent's side of a system's process: start it, ask it, time it out, end it (Linux)."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from benchmarks._question import Figures

ROOT = Path(__file__).parent.parent
GRACE = 10.0  # seconds for a system to close its workers


class NoAnswerError(Exception):
    """A measurement failed; the text says how: with an error, by a crash, or by a timeout."""


class Cell:
    """A process that opens a system and then waits for cases on stdin; it is started at once.

    It leads a session of its own, so that ``kill`` also ends whatever the system has left behind.
    """

    def __init__(self, module: str, system: str) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by kill)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._cell_main", module, system],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=ROOT,
            env=as_users_have_it(),
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self._life = os.pidfd_open(self._process.pid)

    def ask(self, case: str, limit: float) -> Figures:
        """Measure one case. Block for at most ``limit`` seconds; raise NoAnswerError on any failure."""
        with suppress(BrokenPipeError):  # the process has died: reading its answer reports that
            self._in.write(f"{case}\n".encode())
            self._in.flush()
        answer = json.loads(self._line(time.monotonic() + limit, limit))
        if "error" in answer:
            raise NoAnswerError(answer["error"])
        figures: Figures = answer["figures"]
        return figures

    def _line(self, end: float, limit: float) -> bytes:
        line, out = b"", self._out.fileno()
        while not line.endswith(b"\n"):
            # Watch the process too: if it dies, its orphans may still hold the pipe open.
            ready = select.select([out, self._life], [], [], max(0.0, end - time.monotonic()))[0]
            if not ready:
                raise NoAnswerError(f"no answer within {limit:g} s")
            piece = os.read(out, 65536) if out in ready else b""
            if not piece:
                raise NoAnswerError(self._obituary())
            line += piece
        return line

    def _obituary(self) -> str:
        if not select.select([self._life], [], [], GRACE)[0]:
            return "closed its standard output"
        end = os.waitid(os.P_PIDFD, self._life, os.WEXITED | os.WNOWAIT)
        assert end is not None, "a process that is gone has left its status"
        code = end.si_status
        how = (
            f"exited with {code}"
            if end.si_code == os.CLD_EXITED
            else f"killed by {signal.Signals(code).name}"
        )
        self._log.seek(0)
        last = self._log.read().decode(errors="replace").strip().rpartition("\n")[2]
        return f"{how}: {last}" if last else how

    def close(self) -> None:
        """Let the system close its workers, for at most GRACE seconds; then kill whatever is left."""
        with suppress(BrokenPipeError):
            self._in.close()
        select.select([self._life], [], [], GRACE)
        self.kill()

    def kill(self) -> None:
        """Kill the process and everything in its process group."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # before wait() reaps it: then its pid may be reused
        self._process.wait()
        os.close(self._life)
        with suppress(BrokenPipeError):  # closing flushes, and the last case may still be in the buffer
            self._in.close()
        self._out.close()
        self._log.close()


def as_users_have_it() -> dict[str, str]:
    """The environment without PYTHON* variables, so that e.g. bytecode is cached, as it is for users."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
