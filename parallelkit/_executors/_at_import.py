"""Refuses worker processes to a module that a worker imports for its functions: these would import it, too, and so on.

A module that runs its own functions in processes at its top level may be imported where no worker does so. But its workers
import it for these functions, each of them would start as many more, and there would be no end to it.
"""

from __future__ import annotations

import sys

from parallelkit._executors._needs import home_of

_SERVES = "parallelkit._worker._serve"  # what only a worker has loaded


class AtImportError(RuntimeError):
    """The function of a module that is being imported here, in a worker, was to be run in worker processes."""


def refuse_at_import(fn: object) -> None:
    """Raise AtImportError where this is a worker that imports the function's module, or a package that this is in."""
    if _SERVES not in sys.modules:
        return
    home = name = home_of(fn)
    while name:
        spec = getattr(sys.modules.get(name), "__spec__", None)
        if getattr(spec, "_initializing", False):
            raise AtImportError(
                f"module {home!r} has worker processes started as it is imported, and these import it for its functions: "
                "have it start them in a function, or under if __name__ == '__main__'"
            )
        name = name.rpartition(".")[0]
