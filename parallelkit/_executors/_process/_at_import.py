"""Keeps a module that starts workers at its top level from starting them without end.

Such a module may start workers when the program imports it. But each worker imports the module, too, for the
function that it is given (or for an argument, an item or an initializer), and would start as many workers again.
So within a worker, whatever belongs to a module that is being imported is refused.
"""

from __future__ import annotations

import sys
from importlib import _bootstrap
from typing import Any

from parallelkit._executors._process._preload import module_for
from parallelkit._worker._channel import is_worker

_locks: dict[str, object] = _bootstrap._module_locks  # type: ignore[attr-defined]  # of modules that are being imported
_TEXTS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_LOOKS = ("BINGET", "LONG_BINGET")


class AtImportError(RuntimeError):
    """A worker is importing a module, and other workers were to be given something of that module."""


def refuse_function(fn: object) -> None:
    """Raise AtImportError if this is a worker that is importing the function's module, or a package that contains it."""
    if is_worker():
        _refuse(module_for(fn))


def refuse_packed(packed: bytes) -> None:
    """Do the same for the module of everything to which a pickle refers."""
    if is_worker() and _locks:
        for module in modules_in(packed):
            _refuse(module)


def _refuse(module: str) -> None:
    name = module
    while name:
        spec = getattr(sys.modules.get(name), "__spec__", None)
        if getattr(spec, "_initializing", False):
            raise AtImportError(
                f"module {module!r} starts worker processes while it is imported, and these import it in turn; "
                "start them in a function, or under if __name__ == '__main__'"
            )
        name = name.rpartition(".")[0]


def modules_in(packed: bytes) -> set[str]:
    """The modules that unpickling this imports: STACK_GLOBAL takes the module's name and a name in it, the two texts before."""
    from pickletools import genops

    found: set[str] = set()
    memo: list[str] = []
    arg: Any
    before = top = ""  # the last two things on the stack, where they are texts
    for code, arg, _ in genops(packed):
        if code.name == "MEMOIZE":
            memo.append(top)
        elif code.name != "FRAME":
            if code.name == "STACK_GLOBAL":
                found.add(before)
            before, top = top, arg if code.name in _TEXTS else memo[arg] if code.name in _LOOKS else ""
    return found - {""}
