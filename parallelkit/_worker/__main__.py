"""The entry point of a worker process, started by its path; imports as little as it can."""

from __future__ import annotations

import gc
import sys
from _thread import RLock
from types import ModuleType

NAME = "parallelkit"


def main() -> None:
    """Serve the parent: as a worker, or as the zygote that forks workers.

    The arguments of a worker are three descriptors: socket, ring, lifeline. Those of the zygote are the
    word ``zygote``, three descriptors (socket, lifeline, shared page), and the names of modules to load.
    """
    gc.disable()  # it would find nothing in what is loaded here, and take a tenth of the time
    add_package(__file__.rpartition("/_worker/")[0])
    # Tasks that look for the user's main module, which is not loaded here, must not find this one.
    sys.modules["__main__"] = ModuleType("__main__")
    from parallelkit._worker._out_of_memory import go_first

    go_first()
    if sys.argv[1] == "zygote":
        from parallelkit._worker._zygote import tend

        tend(int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
    else:
        from parallelkit._worker._serve import serve

        gc.freeze()
        gc.enable()
        serve(*map(int, sys.argv[1:4]))


def add_package(folder: str) -> None:
    """Register the package without running its ``__init__``, which runs once a public name is asked for."""
    from _frozen_importlib_external import spec_from_file_location

    spec = spec_from_file_location(NAME, folder + "/__init__.py", submodule_search_locations=[folder])
    assert spec is not None
    assert spec.loader is not None
    loader = spec.loader
    package = ModuleType(NAME)
    package.__spec__, package.__loader__, package.__package__ = spec, loader, NAME
    package.__file__, package.__path__ = spec.origin, [folder]

    lock, runs = RLock(), False  # several threads of a task may ask at once

    def load(name: str) -> object:
        nonlocal runs
        # Of dunder names, user code asks only for these two. Introspection that tries others must not run the package.
        if name.startswith("__") and name not in ("__all__", "__version__"):
            raise AttributeError(name)
        with lock:
            if runs:  # asked by the package's own __init__, as it runs
                raise AttributeError(name)
            if package.__getattr__ is load:
                runs = True
                try:
                    loader.exec_module(package)
                finally:
                    runs = False
        return getattr(package, name)

    package.__getattr__ = load  # type: ignore[method-assign]  # PEP 562
    sys.modules[NAME] = package


if __name__ == "__main__":
    main()
