"""The entry of a worker process, started by its path; imports next to nothing."""

from __future__ import annotations

import sys
from _thread import RLock
from types import ModuleType

NAME = "parallelkit"


def main() -> None:
    """Serve the parent whose socket, ring and lifeline are the descriptors in the arguments.

    Or be its zygote, with a socket, a lifeline, a shared page and the names of modules to load.
    """
    add_package(__file__.rpartition("/_worker/")[0])
    # Tasks shall not find us where they expect the user's main module, which is not here.
    sys.modules["__main__"] = ModuleType("__main__")
    if sys.argv[1] == "zygote":
        from parallelkit._worker._zygote import tend

        tend(int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
    else:
        from parallelkit._worker._serve import serve

        serve(*map(int, sys.argv[1:4]))


def add_package(folder: str) -> None:
    """Put the package there without running its ``__init__``, which runs when somebody first asks for a name of it."""
    from _frozen_importlib_external import spec_from_file_location

    spec = spec_from_file_location(NAME, folder + "/__init__.py", submodule_search_locations=[folder])
    assert spec is not None
    assert spec.loader is not None
    loader = spec.loader
    package = ModuleType(NAME)
    package.__spec__, package.__loader__, package.__package__ = spec, loader, NAME
    package.__file__, package.__path__ = spec.origin, [folder]

    lock, runs = RLock(), False  # several threads of a task may ask

    def load(name: str) -> object:
        nonlocal runs
        # Those two a module of the user's may ask for; what looks for any other shall not have the package run.
        if name.startswith("__") and name not in ("__all__", "__version__"):
            raise AttributeError(name)
        with lock:
            if runs:  # it is the package itself that asks
                raise AttributeError(name)
            if package.__getattr__ is load:
                runs = True
                try:
                    loader.exec_module(package)
                finally:
                    runs = False
        return getattr(package, name)

    package.__getattr__ = load  # type: ignore[method-assign]  # as a module may have one
    sys.modules[NAME] = package


if __name__ == "__main__":
    main()
