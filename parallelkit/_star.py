"""Calls with an item as all their positional arguments (``star=True``), and the errors for items that cannot be unpacked."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


def starred(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Callable[[Any], Any]:
    """``fn``, called with the elements of an item as arguments."""

    def call(item: Any) -> Any:
        if isinstance(item, dict):
            refuse_names(item)
        try:
            return fn(*item, *args, **kwargs)
        except TypeError:
            check_unpacks(item)
            raise

    return call


def refuse_names(item: dict[Any, Any]) -> None:
    """Raise TypeError for a dict, which would be unpacked into its keys. Called before fn, which might accept them."""
    from reprlib import repr as shorten  # a worker starts without it

    raise TypeError(
        f"star=True unpacks each item into positional arguments, and a dict into its keys, got the item {shorten(item)}; "
        "for keyword arguments leave star out and pass lambda item: fn(**item) as the function"
    )


def check_unpacks(item: object) -> None:
    """Raise TypeError for an item that cannot be unpacked. Called only after a call has failed, so others cost nothing."""
    if hasattr(type(item), "__iter__") or hasattr(type(item), "__getitem__"):
        return
    from reprlib import repr as shorten  # a worker starts without it

    raise TypeError(
        f"star=True unpacks each item into the arguments of a call, got the item {shorten(item)}; "
        "pass tuples as items, or leave star out"
    ) from None
