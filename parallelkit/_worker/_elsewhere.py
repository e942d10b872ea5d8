"""Where functions and classes of libraries are found: under their own name, or under another."""

from __future__ import annotations

import sys
from types import ModuleType

from parallelkit._worker._script import NAMES

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any


class MoreError(Exception):
    """The pickle needs cloudpickle."""


def is_importable(obj: Any) -> bool:
    """Whether a function or class is found under its name at the other end, which does not have the script.

    Raises MoreError if it does not tell its module: then cloudpickle, and plain pickle too, look through all that are loaded.
    """
    name = getattr(obj, "__module__", None)
    if type(name) is not str:
        raise MoreError
    if name in NAMES:
        return False
    found: Any = sys.modules.get(name)
    for part in obj.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is obj


def elsewhere(obj: Any) -> Any:
    """How a function or class is pickled that is not where it says: by the module of its library that has it, if one does.

    ``regex.Match`` says that it is in ``_regex``, and ``autograd.numpy.sin`` in ``autograd.tracer``. By value, one cannot be
    pickled, and the other would be another function, of which its library knows nothing. None if no module has it by its name.
    """
    home, name = getattr(obj, "__module__", None), getattr(obj, "__name__", None)
    if type(home) is not str or home in NAMES or type(name) is not str:
        return None
    library = _library(home)
    for path, module in list(sys.modules.items()):
        if type(module) is ModuleType and vars(module).get(name) is obj and _library(path) == library:
            return None if _is_sent(module) else (getattr, (module, name))
    return None


def _library(module: str) -> str:
    """Its first name; what is written in C often has a package of its own, ``_regex``."""
    return module.partition(".")[0].lstrip("_")


def _is_sent(module: ModuleType) -> bool:
    """Whether the program has registered it with cloudpickle to be sent by value, as no worker has it."""
    cloudpickle = sys.modules.get("cloudpickle.cloudpickle")
    is_registered = getattr(cloudpickle, "_is_registered_pickle_by_value", None)
    return is_registered is not None and is_registered(module)
