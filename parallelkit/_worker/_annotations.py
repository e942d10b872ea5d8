"""The annotations of a class that is sent by value: what they mean, in place of text.

After ``from __future__ import annotations`` all are text, and elsewhere some are (``"Node"``, ``list["Node"]``). Libraries such as
cattrs, dacite, msgspec and pydantic look up what it names in the class's module: that is the script, which a worker does not have.
"""

from __future__ import annotations

import re
import sys
from copy import copy
from io import BytesIO
from typing import TYPE_CHECKING, Any, ForwardRef, get_type_hints
from weakref import WeakKeyDictionary

from parallelkit._raised import is_of_signal, tolerated
from parallelkit._worker._by_value import annotations_of
from parallelkit._worker._needed import FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping

OWN = "__annotations__"
DEFERRED, RETURNED = "__annotate_func__", "__annotations_cache__"
"""The code of a class's annotations, since Python 3.14, which cloudpickle leaves out; and what that has returned, if it was called."""

WORD = re.compile(r"\w+")

_fit: WeakKeyDictionary[type, bool] = WeakKeyDictionary()
"""Whether what the text of a class means can be pickled, of classes that were looked at, or are being."""


def set_annotations(cls: type, state: dict[str, Any], make: Callable[..., Any]) -> None:
    """In the state of a class, put what its annotations mean in the place of text, and so in its dataclass fields.

    What has no meaning here stays text. So does all if something that it means cannot be pickled, such as a class of an ORM.
    ``make``: the class of picklers.
    """
    if DEFERRED in vars(cls):
        state.pop(DEFERRED, None)
        state.pop(RETURNED, None)
        state.setdefault(OWN, annotations_of(cls))
    known = {cls: _meanings(cls, state.get(OWN, {}))}
    meant = {OWN: known[cls], FIELDS: dict(_typed(cls, state.get(FIELDS, {}), known))}
    if any(meant.values()) and _can_be_pickled(cls, meant, make):
        for name, values in meant.items():
            if values:
                state[name] = state[name] | values  # a copy, as it is the class's own


def _meanings(cls: type, annotations: Mapping[str, Any]) -> dict[str, Any]:
    """What those of a class's annotations mean that have text, as far as it means something."""
    scope = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
    texts = {name: value for name, value in annotations.items() if _names_any(scope, value)}
    if not texts:
        return texts
    with tolerated():
        return _evaluated(cls, texts, scope)
    meanings: dict[str, Any] = {}
    for name, text in texts.items():  # at least one of them is in error
        with tolerated():
            meanings |= _evaluated(cls, {name: text}, scope)
    return meanings


def _names_any(scope: Container[str], value: Any) -> bool:
    """Whether text in an annotation names something of this scope: ``"int"`` means the same everywhere."""
    text = value.__forward_arg__ if isinstance(value, ForwardRef) else value
    if isinstance(text, str):
        return any(map(scope.__contains__, WORD.findall(text)))
    parts = getattr(value, "__args__", ())
    return type(parts) is tuple and any(
        _names_any(scope, part) for part in parts
    )  # a proxy may have anything


def _evaluated(cls: type, texts: dict[str, Any], scope: dict[str, Any]) -> dict[str, Any]:
    body = {OWN: texts, "__module__": cls.__module__, "__type_params__": getattr(cls, "__type_params__", ())}
    of_these = type(cls.__name__, (), body)
    return get_type_hints(
        of_these, dict(vars(cls)), scope, include_extras=True
    )  # ``scope`` comes first, as for Python


def _typed(
    cls: type, fields: Mapping[str, Any], known: dict[type, dict[str, Any]]
) -> Iterator[tuple[str, Any]]:
    """The dataclass fields whose types have a meaning in place of text, with it.

    ``known``: what the annotations of a class mean, added to.
    """
    for name, field in fields.items():
        if type(field.type) is str:
            maker = next((base for base in cls.__mro__ if name in vars(base).get(OWN, ())), cls)
            if maker not in known:  # one of a library is found by what it names
                of_script = maker.__module__ == cls.__module__
                known[maker] = _meanings(maker, vars(maker)[OWN]) if of_script else {}
            if name in known[maker]:
                meant = copy(field)
                meant.type = known[maker][name]
                yield name, meant


def _can_be_pickled(cls: type, meant: object, make: Callable[..., Any]) -> bool:
    if cls not in _fit:
        _fit[cls] = True  # which its own annotations may name
        try:
            make(BytesIO(), 5, buffer_callback=lambda buffer: None).dump(meant)
        except Exception as error:
            if is_of_signal(error):
                raise
            _fit[cls] = False
    return _fit[cls]
