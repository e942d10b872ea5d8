"""How many tasks may run at a time: by the cpus that there are, and the widths of the runs that enclose this one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from math import inf, prod
from types import MappingProxyType
from typing import Protocol

from parallelkit._system import monotonic, read

QUOTA_HOLDS = 1.0
"""Seconds for which the quota is cached, because reading its file takes a third of a short run."""


class Wide(Protocol):
    """An engine."""

    max_workers: int


_widths: ContextVar[Mapping[Wide, int]] = ContextVar("parallelkit_widths", default=MappingProxyType({}))
_quota: tuple[float, float | None] = (-inf, None)  # the instant when it was read, and its value


def widen(engine: Wide) -> None:
    """In the context of an engine's tasks: note how many of them run at a time.

    An engine counts once: what its tasks start on it shares its slots.
    """
    widths = _widths.get()
    if engine not in widths:
        _widths.set({**widths, engine: engine.max_workers})


def outer_width() -> int:
    """The product of the widths of all engines whose tasks enclose this code; 1 outside any task."""
    from parallelkit._worker import _channel

    return prod(_widths.get().values()) * _channel.inherited_width()


def usual_threads(cpus: int) -> int:
    """The width of a run in threads that nobody chose, outside of any other run: that of the standard pool."""
    return min(32, cpus + 4)


def usable_cpus() -> int:
    """The number of cpus that this process may use, by its affinity and the quota of its cgroup (Linux)."""
    global _quota
    cpus = _allowed_cpus()
    read_at, quota = _quota
    if monotonic() >= read_at + QUOTA_HOLDS:
        quota = cgroup_quota()
        _quota = monotonic(), quota
    return cpus if quota is None else max(1, min(cpus, int(quota + 0.5)))


def _allowed_cpus() -> int:
    if hasattr(os, "process_cpu_count"):  # since Python 3.13; PYTHON_CPU_COUNT sets it
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cgroup_quota() -> float | None:
    """How many cpus the cgroup grants (v2, else v1); None if it sets no limit."""
    try:
        quota, period = read("/sys/fs/cgroup/cpu.max").split()
    except (OSError, ValueError):
        try:
            quota = read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
            period = read("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
        except OSError:
            return None
    if quota.strip() in ("max", "-1"):
        return None
    return int(quota) / int(period)


def has_global_lock() -> bool:
    """Whether threads run Python code one at a time. Interpreters built without that lock may still turn it on."""
    ask: Callable[[], bool] | None = getattr(sys, "_is_gil_enabled", None)  # since Python 3.13
    return ask is None or ask()
