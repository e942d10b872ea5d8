"""``Results``: the outcomes of a run by key, in the order that the caller chose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from parallelkit._errors import TaskFailures
from parallelkit._keyed import Keyed, no_such_key, position_of
from parallelkit._ledger import Ledger
from parallelkit._lost import counted, raised, tally
from parallelkit._public import public
from parallelkit._report._rows import as_frame, as_row
from parallelkit._worker._faults import capture_here, restore

if TYPE_CHECKING:
    from parallelkit._outcomes import Attempt, Failure, Outcome
    from parallelkit._report._summary import Summary

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

RAISE: Any = type("RAISE", (), {"__repr__": lambda self: "RAISE"})()


@public
class Results(Keyed[K, V], Generic[K, V]):
    """The results of a run: a mapping from key to value, in the ``order`` of the run.

    ``results[key]`` returns the task's value, or raises its error. ``in``, ``len`` and iteration look only at
    keys. ``get`` returns its default for an unknown key, but raises for a failed task. ``values()`` and
    ``items()`` return lists, or raise ``TaskFailures`` with every failure. ``Success`` and ``Failure`` objects
    are built on access, so that a million outcomes take little memory.

    >>> from parallelkit import run_parallel
    >>> results = run_parallel(lambda x: 12 / x, {"a": 3, "b": 0}, executor="inline")
    >>> results["a"], results.failures["b"].error
    (4.0, ZeroDivisionError('division by zero'))
    >>> results.to_dict(default=None)
    {'a': 4.0, 'b': None}
    """

    __slots__ = ("__weakref__", "_index_of", "_ledger", "_order")

    def __init__(self, ledger: Ledger, order: Sequence[int] | None = None) -> None:
        self._ledger = ledger
        self._order = order
        self._index_of: dict[Any, int] | None = None

    # The mapping: keys and values.

    def __getitem__(self, key: K) -> V:
        index = self._index(key)
        if self._is_success(index):
            return self._ledger.values[index]  # type: ignore[no-any-return]  # columns hold what the tasks gave
        error = raised(self._ledger.lost(index))
        try:
            raise error
        finally:
            self = error = None  # type: ignore[assignment]  # noqa: PLW0642  # no cycle through the traceback; IPython reads self

    def __len__(self) -> int:
        return len(self._ledger)

    def __iter__(self) -> Iterator[K]:
        return map(self._ledger.key, self._indices())

    def __contains__(self, key: object) -> bool:
        return self._find(key) >= 0

    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, /, default: V | D) -> V | D: ...
    def get(self, key: K, /, default: Any = None) -> Any:
        """The value of a key, or ``default`` if the key is unknown. For a failed task, raises its error."""
        return self[key] if key in self else default  # noqa: SIM401  this is ``get``

    @overload  # type: ignore[override]  # a list, by design
    def values(self) -> list[V]: ...
    @overload
    def values(self, *, default: D) -> list[V | D]: ...
    def values(self, *, default: Any = RAISE) -> list[Any]:
        """The values as a list, in order. For a failed task, ``default``; without one, raises ``TaskFailures``."""
        if default is not RAISE:
            return [value for _, value in self.items(default=default)]
        self.raise_failures()
        values = self._ledger.values
        return list(values) if self._order is None else [values[index] for index in self._order]

    @overload  # type: ignore[override]  # a list, by design
    def items(self) -> list[tuple[K, V]]: ...
    @overload
    def items(self, *, default: D) -> list[tuple[K, V | D]]: ...
    def items(self, *, default: Any = RAISE) -> list[tuple[K, Any]]:
        """Pairs of key and value as a list, in order; ``default`` as for ``values``."""
        if default is RAISE:
            return list(zip(self, self.values(), strict=True))
        of, key = self._ledger.values, self._ledger.key
        return [(key(at), of[at] if self._is_success(at) else default) for at in self._indices()]

    @overload
    def to_dict(self) -> dict[K, V]: ...
    @overload
    def to_dict(self, *, default: D) -> dict[K, V | D]: ...
    def to_dict(self, *, default: Any = RAISE) -> dict[K, Any]:
        """A plain dict from key to value, in order; ``default`` as for ``values``."""
        return dict(self.items(default=default))

    # The outcomes.

    @property
    def outcomes(self) -> Mapping[K, Outcome[K, V]]:
        """A mapping from key to ``Success`` or ``Failure``; each is built on access."""
        return _Outcomes(self)

    @property
    def successes(self) -> dict[K, V]:
        """A new dict from key to value, of the tasks that succeeded. In a loop, keep it in a variable."""
        key, values = self._ledger.key, self._ledger.values
        return {key(index): values[index] for index in self._indices() if self._is_success(index)}

    @property
    def failures(self) -> dict[K, Failure[K]]:
        """A new dict from key to ``Failure``, of the tasks without a value, cancelled ones included. In a loop, keep it in a variable."""
        found = map(self._ledger.outcome, self._lost())
        return {failure.key: failure for failure in found}  # type: ignore[misc]  # no success

    def raise_failures(self) -> None:
        """Raise ``TaskFailures`` with every failure, if there are any."""
        errors = [raised(self._ledger.lost(index)) for index in self._lost()]
        if errors:
            group = TaskFailures(f"{len(errors)} of {counted(len(self))} failed: {tally(errors)}", errors)
            group.results = self
            try:
                raise group
            finally:
                del group  # as in ``__getitem__``

    @property
    def stopped(self) -> str | None:
        """Why the run was stopped; None if it ran to its end."""
        return self._ledger.stopped

    @property
    def attempts(self) -> list[Attempt[K]]:
        """Every attempt, in order of start; in the ``results`` of a stream's or fold's error, only the last of each task."""
        return self._ledger.attempts()

    @property
    def summary(self) -> Summary:
        """The figures of the run, as attributes.

        Counts: ``tasks``, ``succeeded``, ``failed``, ``cancelled``, ``attempts``, ``retried``, ``recalled``
        (successes from a checkpoint or cache). Seconds: ``wall``, ``busy`` (the sum over all attempts),
        ``longest`` (of one task). ``parallelism`` is busy ÷ wall.
        """
        from parallelkit._report._summary import survey

        return survey(self._ledger).summary

    def report(self, cost_per_attempt: float | None = None) -> str:
        """Describe the run in text, about one screenful.

        It has counts, times, the slowest tasks, failures by kind (also of retried attempts), and advice if
        something held the run back. ``cost_per_attempt``, in a currency of your choice, adds a table of time,
        calls and cost, sequential against parallel. A million outcomes take 0.2 s.

        >>> from parallelkit import run_parallel
        >>> report = run_parallel(len, ["a", "bb"], executor="inline").report(cost_per_attempt=0.03)
        >>> print(report.splitlines()[0])
        2 tasks: 2 succeeded, 0 failed
        """
        from parallelkit._report._text import write_text

        return write_text(self._ledger, cost_per_attempt)

    def save_html(self, path: str | PathLike[str]) -> None:
        """Write a report of the run as a self-contained HTML page, which needs no network.

        It has the figures, a timeline (a lane per worker, a bar per attempt; drag to zoom in), a histogram of
        durations, the slowest tasks, failures with a traceback of each kind, and the advice. It contains keys,
        errors and tracebacks, but no values. 100,000 tasks take half a second and 4 MB. An existing file is
        replaced. Raises OSError if the file cannot be written.

        >>> import os
        >>> from parallelkit import run_parallel
        >>> run_parallel(len, ["a", "bb"]).save_html(os.devnull)  # or "run.html"
        """
        from parallelkit._report._html import write_html

        write_html(self._ledger, path)

    def save_trace(self, path: str | PathLike[str]) -> None:
        """Write the run as a Chrome trace (JSON), for ui.perfetto.dev, chrome://tracing and speedscope.

        A track per worker, and a slice per attempt with its key, number, seconds since it was queued, and error.
        100,000 tasks take a second and 20 MB. An existing file is replaced. Raises OSError if that fails.

        >>> import os
        >>> from parallelkit import run_parallel
        >>> run_parallel(len, ["a", "bb"]).save_trace(os.devnull)  # or "run.json"
        """
        from parallelkit._report._trace import write_trace

        write_trace(self._ledger, path)

    def _repr_html_(self) -> str:
        from parallelkit._report._card import card

        return card(self._ledger)

    def rows(self) -> list[dict[str, Any]]:
        """One dict per task, in order: the fields of its outcome, ``ok``, ``error`` as text, ``error_type`` as a name."""
        return [as_row(outcome) for outcome in self.outcomes.values()]

    def to_frame(self) -> Any:
        """``rows()`` as a pandas DataFrame, indexed by key. Raises ImportError if pandas is not installed."""
        return as_frame(self.rows())

    def __repr__(self) -> str:
        failed, cancelled = len(self._ledger.failed), len(self._ledger.cancelled)
        shown = f"{counted(len(self))}: {len(self) - failed - cancelled} succeeded, {failed} failed"
        shown += f", {cancelled} cancelled" if cancelled else ""
        return f"<Results of {shown}>"

    def __eq__(self, other: object) -> bool:
        """Compare keys and values, as mappings do. Results with a failure are equal only to themselves."""
        if self is other:
            return True
        if not isinstance(other, Mapping):
            return NotImplemented
        if self._lost() or (isinstance(other, Results) and other._lost()):
            return False
        return self.to_dict() == dict(other.items())

    __hash__ = None  # type: ignore[assignment]  # as for every mapping

    def __reduce__(self) -> tuple[Any, ...]:
        if self._ledger.is_being_sealed():  # an error leads back here: None, or its pickle had no end
            return type(None), ()
        return (
            object.__new__,
            (type(self),),
            {"ledger": self._ledger.sealed(capture_here), "order": self._order},
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Errors are sent as from a worker, so that those that cannot be pickled by themselves arrive too.
        ledger = state["ledger"].sealed(lambda blob: restore(blob, "a task".__str__)[0])
        Results.__init__(self, ledger, state["order"])

    # Where the outcomes are.

    def _indices(self) -> Sequence[int]:
        return range(len(self._ledger)) if self._order is None else self._order

    def _is_success(self, index: int) -> bool:
        return index not in self._ledger.failed and index not in self._ledger.cancelled

    def _lost(self) -> list[int]:
        lost = self._ledger.failed.keys() | self._ledger.cancelled.keys()
        return [index for index in self._indices() if index in lost] if lost else []

    def _index(self, key: Any) -> int:
        index = self._find(key)
        if index < 0:
            raise no_such_key(key, self._ledger.keys)
        return index

    def _find(self, key: Any) -> int:
        """The index of the task that has this key; a negative number if none has."""
        keys = self._ledger.keys
        if keys is None:
            return position_of(key, len(self._ledger))
        if self._index_of is None:
            self._index_of = {key: index for index, key in enumerate(keys)}
        return self._index_of.get(key, -1)


class _Outcomes(Keyed[K, "Outcome[K, V]"], Generic[K, V]):
    """The outcomes of a ``Results``, built on access."""

    def __init__(self, results: Results[K, V]) -> None:
        self._results = results

    def __getitem__(self, key: K) -> Outcome[K, V]:
        return self._results._ledger.outcome(self._results._index(key))

    def __iter__(self) -> Iterator[K]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        return f"<outcomes of {self._results!r}>"
