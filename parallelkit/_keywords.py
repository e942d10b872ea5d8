"""Suggestions for unknown words: which one was probably meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, TypeVar

T = TypeVar("T")

_PREFIXES = ("", "n", "n_", "num_", "max_")
_COUNTED = ("cores", "cpus", "jobs", "processes", "procs", "threads", "workers")

WORKERS = {
    **dict.fromkeys(("nodes", "nproc", "pool_size", "worker"), "max_workers"),
    **{prefix + counted: "max_workers" for prefix in _PREFIXES for counted in _COUNTED},
}
"""What other libraries call the number of workers."""

TRIES = {name: f"retries={name} - 1" for name in ("attempts", "max_attempts", "max_tries", "tries")}
"""What other libraries call the number of attempts, of which the first is no retry."""

NONE: Mapping[str, str] = {}


def did_you_mean(word: str, known: Iterable[str], elsewhere: Mapping[str, str] = NONE) -> str:
    """The nearest known word, as a question, or nothing; ``elsewhere`` has names that other libraries use.

    >>> did_you_mean("max_worker", ["max_workers", "timeout"]), did_you_mean("xyz", ["timeout"])
    ("did you mean 'max_workers'?", '')
    """
    import difflib  # takes half a millisecond to load

    near = elsewhere.get(word) or next(iter(difflib.get_close_matches(word, list(known), 1)), None)
    return "" if near is None else f"did you mean {near!r}?"


def field_hint(given: object) -> str:
    """A hint for a field's name given in place of a function of the item: what to write instead.

    >>> field_hint("id"), field_hint(3)
    ("; for a field of the item write lambda item: item['id']", '')
    """
    return f"; for a field of the item write lambda item: item[{given!r}]" if isinstance(given, str) else ""


def suggests(**elsewhere: str) -> Callable[[type[T]], type[T]]:
    """Make a class suggest the keyword that was meant when it gets an unknown one; its signature is unchanged."""

    def decorate(kind: type[T]) -> type[T]:
        init = vars(kind)["__init__"]
        code = init.__code__
        known = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]

        @wraps(init)
        def checked(self: T, *args: Any, **kwargs: Any) -> None:
            for name in kwargs:
                if name not in known:
                    hint = did_you_mean(name, known, elsewhere) or f"the keywords are {', '.join(known)}"
                    raise TypeError(f"{kind.__name__} got an unknown keyword: {name}; {hint}")
            init(self, *args, **kwargs)

        kind.__init__ = checked  # type: ignore[method-assign, assignment]  # it takes what the class takes
        return kind

    return decorate
