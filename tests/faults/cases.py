"""The form of a case: a fault, where it happens, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

THREADS, PROCESSES, COROUTINES = "threads", "processes", "coroutines"
THREAD_POOL, PROCESS_POOL = "ThreadPoolExecutor", "ProcessPoolExecutor"

COUNT = 20


@dataclass(frozen=True)
class Wants:
    """The outcome that the bad task must have: a value by its text, or an error by type, text and attributes."""

    type: str = "value"
    shown: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def mismatch(self, outcome: dict[str, Any]) -> str | None:
        """How an outcome differs from this, or None."""
        if (self.type == "value") != outcome["ok"]:
            return f"wanted {self.type} {self.shown}, got {outcome}"
        if self.type not in ("value", outcome.get("type")):
            return f"wanted a {self.type}, got {outcome}"
        if self.shown not in outcome["shown"]:
            return f"wanted {self.shown!r} in {outcome['shown']!r}"
        for name, fact in self.facts.items():
            if outcome.get(name) != fact:
                return f"wanted {name} {fact!r}, got {outcome.get(name)!r} in {outcome}"
        return None


def value(shown: str, **facts: Any) -> Wants:
    """Wants a value whose text, as ``stage.show`` gives it, contains ``shown``."""
    return Wants("value", shown, facts)


def error(kind: type[BaseException] | str, shown: str = "", **facts: Any) -> Wants:
    """Wants an error of exactly this type."""
    return Wants(kind if isinstance(kind, str) else kind.__name__, shown, facts)


def died(**facts: Any) -> Wants:
    """Wants a WorkerDied with this exit code and signal."""
    return Wants("WorkerDied", "worker process", {"exitcode": None, "signal": None, **facts})


def timed_out(**facts: Any) -> Wants:
    return Wants("TaskTimeout", "ran longer than its timeout", facts)


@dataclass(frozen=True)
class Case:
    """A run of twenty tasks, one of which (BAD, the bad task) may misbehave.

    ``deed`` is what the bad task does, and ``item`` makes its item, instead of its number. ``options`` makes
    options of the run, ``engine`` an executor for it. ``caller`` says how the run is called (callers.py, stage.py).
    ``wants`` are the acceptable outcomes of the bad task; if there are none, it must end like the others. ``runs``
    says how often the bad task may have begun, ``raises`` the type of what the call raises.

    Every other task must have its value and have run once. If by its nature the fault affects more than its own
    task (all workers are killed, the caller is interrupted), up to ``most`` others may fail with one of the types
    ``also``; these have run at most once. With ``partly``, the input need not have been read completely.

    ``number`` is a signal that is sent to the caller as soon as the file ``here`` is in the scene's folder.
    ``abandons`` threads may be left, tasks have ``timeout`` seconds, and the run ``within`` seconds. The ``core``
    cases are run with other libraries, too (benchmarks/faults), and in every test run, except those ``covered`` there
    by the test of a promise.
    """

    name: str
    executor: str
    caller: str
    deed: Callable[[Any], Any] | None
    wants: tuple[Wants, ...]
    item: Callable[[Any], Any] | None = None
    options: Callable[[Any], dict[str, Any]] | None = None
    raises: str | tuple[str, ...] | None = None
    also: tuple[str, ...] = ()
    most: int = COUNT
    partly: bool = False
    number: int | None = None
    engine: Callable[[Any], Any] | None = None
    runs: tuple[int, ...] = (1,)
    abandons: int = 0
    timeout: float = 30.0
    within: float = 10.0
    core: bool = False
    covered: bool = False

    @property
    def id(self) -> str:
        where = self.executor if self.caller == "plain" else f"{self.executor}, {self.caller}"
        return f"{self.name} ({where})"


CASES: list[Case] = []
"""The table of all cases; importing ``catalogue`` fills it."""


def fault(
    name: str,
    deed: Callable[[Any], Any] | None,
    where: tuple[str, ...] | str,
    *wants: Wants,
    callers: tuple[str, ...] = ("plain",),
    **fields: Any,
) -> None:
    """Add one case of a fault for each executor in ``where`` and each caller."""
    for executor in (where,) if isinstance(where, str) else where:
        CASES.extend(Case(name, executor, caller, deed, wants, **fields) for caller in callers)


def give(items: Callable[[], Any]) -> Callable[[Any], dict[str, Any]]:
    """Options that replace the input of a run."""
    return lambda scene: {"items": items()}
