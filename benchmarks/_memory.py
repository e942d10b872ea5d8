"""The resident memory of this process, now and at its peak (Linux)."""

from __future__ import annotations

import gc
from pathlib import Path

MB = 1e6
MIB = 2**20


def resident() -> int:
    """Resident bytes now, after a garbage collection."""
    gc.collect()
    return status("VmRSS")


def peak() -> int:
    """The most bytes that were resident at once since ``forget_peak``."""
    return status("VmHWM")


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"no {name} in /proc/self/status")
