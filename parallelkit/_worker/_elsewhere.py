"""Where functions and classes of libraries are found: under their own name, or under another."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from types import FunctionType, ModuleType

from parallelkit._worker._script import NAMES

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any


_INSTALLED = ("/site-packages/", "/dist-packages/")
_LIBRARY_FOLDERS = (f"{os.path.dirname(os.__file__)}/", f"{sys.prefix}/lib/", f"{sys.prefix}/lib64/")


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
    Nor is it sent so if the program may have put it there: workers would not have it, or the one that was there before.
    """
    home, name = getattr(obj, "__module__", None), getattr(obj, "__name__", None)
    if type(home) is not str or home in NAMES or type(name) is not str:
        return None
    library = _library(home)
    if type(obj) is FunctionType and _library(str(obj.__globals__.get("__name__"))) != library:
        return None  # it says that it is the function around which it is wrapped
    by_value = isinstance(obj, (FunctionType, type))
    if by_value and home in sys.modules and not is_of_library(home):
        return None  # soon, for this is called for each local function of the program's modules
    for path, module in _modules_with(obj, name, _modules_of(library)):
        if vars(module).get("__name__") == path and (not by_value or is_of_library(path)):
            return None if is_sent(module) else (getattr, (module, name))
    return None


def send_unplaced(table: dict[type, Any]) -> None:
    """Have a pickler with this table send what tells its name, but no module, by a module that has it.

    Such are numpy's ufuncs of other libraries (``scipy.special.expit``), and ``msgspec.UNSET``. Pickle looks for them in all
    modules, also in the script, under the second name that it has once multiprocessing is imported.
    """

    def reducer(usual: Any) -> Any:
        def reduce(thing: Any) -> Any:
            reduced = usual(thing)
            if type(reduced) is not str or getattr(thing, "__module__", None) is not None:
                return reduced
            paths = [path for path in list(sys.modules) if path not in NAMES]
            _, module = next(_modules_with(thing, reduced, paths), (None, None))
            return reduced if module is None or is_sent(module) else (getattr, (module, reduced))

        return reduce

    ufunc: Any = getattr(sys.modules.get("numpy"), "ufunc", None)
    if ufunc in table:
        table[ufunc] = reducer(table[ufunc])
    for name in ("UNSET", "NODEFAULT"):
        if (token := getattr(sys.modules.get("msgspec"), name, None)) is not None:
            table.setdefault(type(token), reducer(lambda thing: thing.__reduce_ex__(5)))


def _modules_with(obj: object, name: str, paths: Iterable[str]) -> Iterator[tuple[str, ModuleType]]:
    """Those of these modules that are loaded and have an object under this name, by their own names."""
    for path in paths:
        module = sys.modules.get(path)
        if type(module) is ModuleType and vars(module).get(name) is obj:
            yield path, module


def _modules_of(library: str) -> Iterable[str]:
    """The names of a library's modules, in the order in which they were loaded.

    Thousands may be loaded, and a class of ``namedtuple`` alone has half a dozen functions that are asked for.
    """
    return _by_library(*loaded()).get(library, ())


def loaded() -> tuple[int, str]:
    """How many modules are loaded, and the last: for what is to be found out anew when there are others."""
    return len(sys.modules), next(reversed(sys.modules))


@lru_cache(1)
def _by_library(*_: object) -> dict[str, list[str]]:
    """The names of all modules by their libraries. What it is given tells whether others have been loaded since."""
    found: dict[str, list[str]] = {}
    for path in list(sys.modules):
        found.setdefault(_library(path), []).append(path)
    return found


def is_of_library(name: str) -> bool:
    """Whether a loaded module is of an installed library. Modules of the program's own may bind their names anew."""
    module = sys.modules.get(name)
    file = vars(module).get("__file__") if type(module) is ModuleType else None
    return is_installed(file) if type(file) is str else name.partition(".")[0] in sys.stdlib_module_names


def is_installed(file: str) -> bool:
    """Whether this is a file of the standard library, or of another one that has been installed."""
    return file.startswith(_LIBRARY_FOLDERS) or any(part in file for part in _INSTALLED)


def _library(module: str) -> str:
    """Its first name; what is written in C often has a package of its own, ``_regex``."""
    return module.partition(".")[0].lstrip("_")


def is_sent(module: ModuleType) -> bool:
    """Whether the program has registered it with cloudpickle to be sent by value, as no worker has it."""
    cloudpickle = sys.modules.get("cloudpickle.cloudpickle")
    is_registered = getattr(cloudpickle, "_is_registered_pickle_by_value", None)
    return is_registered is not None and is_registered(module)
