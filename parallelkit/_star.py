"""What is said of an item that ``star=True`` cannot unpack."""

from __future__ import annotations


def check_unpacks(item: object) -> None:
    """Raise TypeError for an item that cannot be unpacked; asked once a call has failed, so that a good one costs nothing."""
    if hasattr(type(item), "__iter__") or hasattr(type(item), "__getitem__"):
        return
    from reprlib import repr as shorten  # a worker starts without it

    raise TypeError(
        f"star=True unpacks each item into the arguments of a call, got the item {shorten(item)}; "
        "pass tuples as items, or leave star out"
    ) from None
