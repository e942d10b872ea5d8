"""What a script names with ``NewType``, ``TypeVar``, ``ParamSpec``, ``TypeVarTuple`` or a ``type`` statement: sent by value.

Their own pickle is the name of a variable, which no worker finds in its ``__main__``. (cloudpickle knows ``TypeVar`` only, and not
its default, without which a class may lack arguments.) Annotations have them, so without this no task of a script could have a
function that is annotated with one.
"""

from __future__ import annotations

from sys import version_info

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


def reduce_name(thing: Any) -> Any:
    """For a pickler: its name if the other side can import it, else what it was made of, and an id as classes have."""
    from cloudpickle import cloudpickle

    module, name = thing.__module__, thing.__name__
    found = None if module in NAMES else cloudpickle._lookup_module_and_qualname(thing, name)
    if found is not None and not cloudpickle._is_registered_pickle_by_value(found[0]):
        return thing.__reduce__()
    if type(thing).__name__ == "TypeAliasType":
        held: list[object] = []  # the value comes when the alias is there: it may refer to that
        return (
            _make_alias,
            (name, module, thing.__type_params__, held),
            (held, thing.__value__),
            None,
            None,
            _hold,
        )
    meant = (
        [thing.__supertype__] if hasattr(thing, "__supertype__") else getattr(thing, "__constraints__", ())
    )
    options = {word: getattr(thing, f"__{word}__") for word in KEYWORDS[type(thing).__name__]}
    tracker = cloudpickle._get_or_create_tracker_id(thing)
    return _make, (type(thing), (name, *meant), options, module, tracker)


def _make(kind: type, args: tuple[Any, ...], options: dict[str, Any], module: str, tracker: str) -> Any:
    """The one of this id that this process has, or a new one."""
    from cloudpickle import cloudpickle

    made = kind(*args, **options)
    made.__module__ = module
    return cloudpickle._lookup_class_or_track(tracker, made)


def _make_alias(name: str, module: str, parameters: tuple[Any, ...], held: list[Any]) -> Any:
    """An alias whose value will be the one held. Its class takes the value at once: only a ``type`` statement does not."""
    code = compile("type alias = value()", "<alias>", "exec")
    ours = {"alias": name, None: parameters or None}  # in place of its name, and of no parameters
    consts = tuple(ours.get(const, const) for const in code.co_consts)
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
