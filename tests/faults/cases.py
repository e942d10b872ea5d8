"""What a case is: a fault, where it happens, and what must come back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

THREADS, PROCESSES, COROUTINES = "threads", "processes", "coroutines"
THREAD_POOL, PROCESS_POOL = "ThreadPoolExecutor", "ProcessPoolExecutor"

COUNT = 20


@dataclass(frozen=True)
class Wants:
    """What the bad task's outcome must be: a value as it is shown, or an error by type, text and facts."""

    type: str = "value"
    shown: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def mismatch(self, outcome: dict[str, Any]) -> str | None:
        """What is wrong with an outcome, or None."""
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
    """The value, as ``show`` shows it."""
    return Wants("value", shown, facts)


def error(kind: type[BaseException] | str, shown: str = "", **facts: Any) -> Wants:
    """An error of exactly this type."""
    return Wants(kind if isinstance(kind, str) else kind.__name__, shown, facts)


def died(**facts: Any) -> Wants:
    """The worker's death, with exit code and signal."""
    return Wants("WorkerDied", "worker process", {"exitcode": None, "signal": None, **facts})


def timed_out(**facts: Any) -> Wants:
    return Wants("TaskTimeout", "ran longer than its timeout", facts)


@dataclass(frozen=True)
class Case:
    """Twenty tasks, one of which misbehaves.

    ``deed`` is what that one does; ``item`` makes what it gets in place of its number; ``options`` are
    those of the run, made on the spot. ``caller`` names how the run is called (callers.py). ``wants``
    are the outcomes that will do, for the bad task (none: it must be like the others); ``raises``
    is the type of what the call raises. ``runs`` is how often the bad task may have begun.

    Every other task must have its value and have run once. Where the fault strikes more than its own
    task by its nature (all workers are killed, the caller is interrupted), ``also`` are the types of
    failure that up to ``most`` others may have; these have run once or not at all. With ``partly`` the input need not have been read whole.

    ``number`` is a signal that the caller gets as soon as the file ``here`` is in the scene's folder.
    ``engine`` makes an executor of its own for the run.
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

    @property
    def id(self) -> str:
        where = self.executor if self.caller == "plain" else f"{self.executor}, {self.caller}"
        return f"{self.name} ({where})"


CASES: list[Case] = []
"""The table; the modules of the catalogue fill it when they are imported."""


def fault(
    name: str,
    deed: Callable[[Any], Any] | None,
    where: tuple[str, ...] | str,
    *wants: Wants,
    callers: tuple[str, ...] = ("plain",),
    **fields: Any,
) -> None:
    """One fault at each of several places."""
    for executor in (where,) if isinstance(where, str) else where:
        CASES.extend(Case(name, executor, caller, deed, wants, **fields) for caller in callers)


def give(items: Callable[[], Any]) -> Callable[[Any], dict[str, Any]]:
    """The option that is the input itself."""
    return lambda scene: {"items": items()}
