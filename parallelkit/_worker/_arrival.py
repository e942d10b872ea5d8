"""Finds out which variable of a function is to blame where it could not be unpickled.

The error says what is wrong with an object, but not where that is: ``from mpmath import mp`` fails for want of an argument of ``mpq``.
"""

from __future__ import annotations

import pickle
from io import BytesIO
from itertools import takewhile
from types import CellType, FunctionType

from parallelkit._raised import is_of_signal
from parallelkit._worker._by_value import global_names
from parallelkit._worker._elsewhere import is_of_library
from parallelkit._worker._script import NAMES
from parallelkit._worker._travel import CAREFUL, CLOUDPICKLE

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

CLOSURE, GLOBALS = "__closure__", "__globals__"
"""What holds the variables of a function in its state (_by_value.py)."""


def blame(blob: bytes, raised: type[Exception]) -> str:
    """What is told of the variable of a function in this pickle that raises an error of this type; nothing if that is not known."""
    usual: Any = vars(pickle)["_Unpickler"]  # in Python: it leaves what it had when an error is raised

    class Unpickler(usual):  # type: ignore[misc]  # the base is found at run time
        def find_class(self, module: str, name: str) -> Any:
            if module == CLOUDPICKLE and name in CAREFUL:
                return CAREFUL[name]
            return super().find_class(module, name)

    unpickler: Any = Unpickler(BytesIO(blob))
    try:
        unpickler.load()
    except Exception as error:
        if is_of_signal(error):
            raise
        if type(error) is raised:
            return _innermost([*unpickler.metastack, unpickler.stack])
    return ""


def _innermost(levels: list[list[Any]]) -> str:
    """What is told of the variable that was not ready yet, of the program's function that came last.

    A level is the stack between two marks. The state of a function is a dict, whose items are a level above that of the function,
    of its attributes, and of the dict.
    """
    for number in range(len(levels) - 1, 0, -1):
        below, state, above = levels[number - 1], levels[number], [*levels, []][number + 1]
        if len(below) >= 3 and type(below[-3]) is FunctionType:
            code, home = below[-3].__code__, str(below[-3].__globals__.get("__name__"))
            if (home in NAMES or not is_of_library(home)) and (name := _pending(code, state, above)):
                return f"{name}, which {home}.{code.co_qualname} uses, is to blame: import it, or create it, inside the task"
    return ""


def _pending(code: CodeType, state: list[Any], above: list[Any]) -> str:
    """The variable that a function lacked first, of which ``state`` had arrived, and then what is above. Else an empty text."""
    keys = [key if type(key) is str else "" for key in state[::2]]
    if GLOBALS in keys:  # then come names and values, in a level of their own if there are two or more
        held = state[2 * keys.index(GLOBALS) + 2 :] or above
        known = global_names(code)
        named = [*takewhile(lambda name: type(name) is str and name in known, held[::2])]
        return named[-1] if named else ""
    if CLOSURE in keys:  # then come cells, in a level of their own if there are four or more
        held = [*state[2 * keys.index(CLOSURE) + 1 :], *above]
        ready = [*takewhile(lambda cell: type(cell) is CellType, held)]
        return code.co_freevars[len(ready)] if len(ready) < len(code.co_freevars) else ""
    return ""
