"""What a script names with ``NewType``, ``TypeVar``, ``ParamSpec``, ``TypeVarTuple`` or a ``type`` statement: sent by value.

Their own pickle is the name of a variable, which no worker finds in its ``__main__``. (cloudpickle knows ``TypeVar`` only, and not
its default, without which a class may lack arguments.) Annotations have them, so without this no task of a script could have a
function that is annotated with one.
"""

from __future__ import annotations

from functools import partial
from sys import version_info
from types import CodeType

from parallelkit._raised import is_of_signal
from parallelkit._worker._script import NAMES

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any

KEYWORDS: dict[str, tuple[str, ...]] = {
    "NewType": (),
    "TypeVar": ("bound", "covariant", "contravariant"),
    "ParamSpec": ("bound", "covariant", "contravariant"),
    "TypeVarTuple": (),
    "TypeAliasType": (),  # since Python 3.12
}
"""Their classes, and the keyword arguments of each; the values are attributes between underscores. (``typing_extensions``
gives those of older Pythons attributes that are none.)"""

if version_info >= (3, 12):
    KEYWORDS |= {name: (*KEYWORDS[name], "infer_variance") for name in ("TypeVar", "ParamSpec")}
if version_info >= (3, 13):
    KEYWORDS |= {name: (*KEYWORDS[name], "default") for name in ("TypeVar", "ParamSpec", "TypeVarTuple")}


def kinds() -> list[type]:
    """Their classes, as far as this Python has them."""
    import typing

    return [vars(typing)[name] for name in KEYWORDS if name in vars(typing)]


def _is_importable(thing: Any) -> bool:
    from cloudpickle import cloudpickle

    if thing.__module__ in NAMES:
        return False
    found = cloudpickle._lookup_module_and_qualname(thing, thing.__name__)
    return found is not None and not cloudpickle._is_registered_pickle_by_value(found[0])


def reduce_name(thing: Any) -> Any:
    """For a pickler: its name if the other side can import it, else what it was made of, and an id as classes have."""
    from cloudpickle import cloudpickle

    module, name = thing.__module__, thing.__name__
    if _is_importable(thing):
        return thing.__reduce__()
    if type(thing).__name__ == "TypeAliasType":
        held: list[object] = []  # the value comes when the alias is there: it may refer to that
        return (
            _make_alias,
            (name, module, thing.__type_params__, held, getattr(thing, "__qualname__", name)),
            (held, thing.__value__),
            None,
            None,
            _hold,
        )
    tracker = cloudpickle._get_or_create_tracker_id(thing)
    if type(thing).__name__ == "TypeVar" and getattr(thing, "__infer_variance__", False) and _is_name(name):
        meanings = _meanings_of(thing)
        kept: dict[str, Any] = {}  # they come when the variable is there, as above
        words = {word: len(values) for word, (values, _) in meanings.items()}
        return _make_variable, (name, words, module, tracker, kept), (kept, meanings), None, None, _keep
    meant = (
        [thing.__supertype__] if hasattr(thing, "__supertype__") else getattr(thing, "__constraints__", ())
    )
    options = {word: getattr(thing, f"__{word}__") for word in KEYWORDS[type(thing).__name__]}
    return _make, (type(thing), (name, *meant), options, module, tracker)


_sentinels: dict[str, Any] = {}
"""The sentinels of Python 3.15 that were sent or made, by the ids that they have in all processes."""
_ids: dict[Any, str] = {}


def reduce_sentinel(thing: Any) -> Any:
    """For a pickler: its name if the other side can import it, else what it was made of, and an id: it is compared by identity.

    (No weak reference can be made to one, so cloudpickle's ids are not for them.)
    """
    from uuid import uuid4

    if _is_importable(thing):
        return thing.__reduce__()
    known = _ids.setdefault(thing, uuid4().hex)
    _sentinels[known] = thing
    return _make_sentinel, (type(thing), thing.__name__, repr(thing), thing.__module__, known)


def _make_sentinel(kind: Any, name: str, text: str, module: str, known: str) -> Any:
    """The one of this id that this process has, or a new one."""
    if known not in _sentinels:
        made = kind(name, repr=text)
        made.__module__ = module
        made = _sentinels.setdefault(known, made)  # another thread may have made it
        _ids[made] = known
    return _sentinels[known]


def reduce_reference(reference: Any) -> Any:
    """For a pickler: a reference to a name that was not there yet, without the globals in which it is looked up.

    Since Python 3.14 it has them, all of the script's; so has the class of each dataclass that names itself or a later one.
    """
    from annotationlib import Format  # type: ignore[import-not-found]  # since Python 3.14

    kind: Any = type(reference)
    make = partial(kind, module=reference.__forward_module__, is_class=reference.__forward_is_class__)
    return make, (reference.evaluate(format=Format.STRING),)


def _make(kind: type, args: tuple[Any, ...], options: dict[str, Any], module: str, tracker: str) -> Any:
    """The one of this id that this process has, or a new one."""
    from cloudpickle import cloudpickle

    made = kind(*args, **options)
    made.__module__ = module
    return cloudpickle._lookup_class_or_track(tracker, made)


def _is_name(text: str) -> bool:
    """Whether a type parameter may have this name; a ``TypeVar`` that its class has made may have any."""
    from keyword import iskeyword

    return text.isidentifier() and not iskeyword(text)


def _meanings_of(variable: Any) -> dict[str, tuple[tuple[Any, ...], Exception | None]]:
    """What a type parameter stands for, by keyword: values, or the error of looking at it: what it names may not be there (yet)."""
    import typing

    none = {"bound": None, "default": getattr(typing, "NoDefault", None)}  # a default may be None
    found: dict[str, tuple[tuple[Any, ...], Exception | None]] = {}
    for word in ("bound", "constraints", "default"):
        try:
            value = getattr(variable, f"__{word}__", none.get(word))
        except Exception as error:
            if is_of_signal(error):
                raise
            found[word] = (None,), error
        else:
            values = value if word == "constraints" else () if value is none[word] else (value,)
            if values:
                found[word] = values, None
    return found


def _make_variable(name: str, words: dict[str, int], module: str, tracker: str, kept: dict[str, Any]) -> Any:
    """A ``TypeVar`` whose meanings will be those kept. Its class takes them at once: only a type parameter does not."""
    from cloudpickle import cloudpickle

    def recall(word: str, place: int) -> Any:
        values, error = kept[word]
        if error is not None:
            raise error
        return values[place]

    its_recall = f"_{name}"  # any but the variable's own name, which comes first there
    later = {
        word: [f"{its_recall}({word!r}, {place})" for place in range(many)] for word, many in words.items()
    }
    bound = later.get("bound", [""])[0]
    if "constraints" in later:
        bound = f"({', '.join(later['constraints'])},)"
    default = later.get("default", [""])[0]
    scope: dict[str, Any] = {its_recall: recall}
    exec(f"def owner[{name}{bound and ': '}{bound}{default and ' = '}{default}](): pass", scope)
    (made,) = scope["owner"].__type_params__
    made.__module__ = module
    return cloudpickle._lookup_class_or_track(tracker, made)


def _keep(variable: object, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Give a variable its meanings."""
    kept, meanings = state
    kept.update(meanings)


def _make_alias(name: str, module: str, parameters: tuple[Any, ...], held: list[Any], qualname: str) -> Any:
    """An alias whose value will be the one held. Its class takes the value at once: only a ``type`` statement does not."""
    code = compile("type alias = value()", "<alias>", "exec")
    ours = {"alias": name, None: parameters or None}  # in place of its name, and of no parameters
    consts: tuple[Any, ...] = tuple(ours.get(const, const) for const in code.co_consts)
    # Since Python 3.15 it is shown by the qualified name, which it has of the code of its value.
    consts = tuple(
        each.replace(co_qualname=qualname) if isinstance(each, CodeType) else each for each in consts
    )
    if version_info >= (3, 15) and parameters:  # None is no constant there, but has an instruction of its own
        from opcode import opmap

        load_none, load = (
            compile("None", "", "eval").co_code[-4:-2],
            bytes([opmap["LOAD_CONST"], len(consts)]),
        )
        code = code.replace(co_code=code.co_code.replace(load_none, load, 1))
        consts = (*consts, parameters)
    code = code.replace(co_consts=consts)
    scope = {"__name__": module, "value": lambda: held[0]}
    exec(code, scope)
    return scope["alias"]


def _hold(alias: object, state: tuple[list[Any], Any]) -> None:
    """Give an alias its value."""
    held, value = state
    held.append(value)
