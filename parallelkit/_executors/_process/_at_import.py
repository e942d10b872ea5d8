"""Refuses workers to a module that a worker imports for what they would be given: these would import it, too, and so on.

A module that runs its own functions in processes at its top level may be imported where no worker does so.
But its workers import it for these functions, each of them would start as many more, and there would be no
end to it. The same holds for what else of it they are given: arguments, items, an initializer.
"""

from __future__ import annotations

import sys
from importlib import _bootstrap
from typing import Any

from parallelkit._executors._process._preload import home_of

_SERVES = "parallelkit._worker._serve"  # what only a worker has loaded
_locks: dict[str, object] = _bootstrap._module_locks  # type: ignore[attr-defined]  # of modules that are being imported
_TEXTS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_LOOKS = ("BINGET", "LONG_BINGET")


class AtImportError(RuntimeError):
    """Worker processes were to be given something of a module that is being imported here, in a worker."""


def refuse_function(fn: object) -> None:
    """Raise AtImportError where this is a worker that imports the function's module, or a package that this is in."""
    if _SERVES in sys.modules:
        _refuse(home_of(fn))


def refuse_packed(packed: bytes) -> None:
    """The same for all to which something refers that has been packed."""
    if _SERVES in sys.modules and _locks:
        for home in modules_in(packed):
            _refuse(home)


def _refuse(home: str) -> None:
    name = home
    while name:
        spec = getattr(sys.modules.get(name), "__spec__", None)
        if getattr(spec, "_initializing", False):
            raise AtImportError(
                f"module {home!r} has worker processes started as it is imported, and these import it for what they are "
                "given: have it start them in a function, or under if __name__ == '__main__'"
            )
        name = name.rpartition(".")[0]


def modules_in(packed: bytes) -> set[str]:
    """The modules that are imported by who unpacks this: the name of one comes right before one in it, and a look at that."""
    from pickletools import genops

    found: set[str] = set()
    memo: list[str] = []
    arg: Any
    before = top = ""  # what came last, where it is a text
    for code, arg, _ in genops(packed):
        if code.name == "MEMOIZE":
            memo.append(top)
        elif code.name != "FRAME":
            if code.name == "STACK_GLOBAL":
                found.add(before)
            before, top = top, arg if code.name in _TEXTS else memo[arg] if code.name in _LOOKS else ""
    return found - {""}
