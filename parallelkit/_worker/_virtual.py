"""Classes of the script that are registered with abstract ones, as in ``Sequence.register(Row)``: they are so where they are sent, too.

Only the abstract class knows it; one of the script brings its own (``_classes.REGISTERED``). Those of Python are asked here.
"""

from __future__ import annotations

import sys
from _abc import _get_dump  # type: ignore[import-not-found]
from _weakref import ref
from abc import ABCMeta, get_cache_token
from functools import lru_cache

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any

    Registered = set[ref[type]]

HOMES = "collections.abc", "numbers"


def bases_of(cls: type) -> list[Any]:
    """The abstract classes of Python with which the class is registered."""
    reference = ref(cls)
    with_any, registered = _registered(get_cache_token())
    return [base for base, ones in registered.items() if reference in ones] if reference in with_any else []


@lru_cache(1)
def _registered(_: object) -> tuple[Registered, dict[Any, Registered]]:
    """What is registered with any of them, and with each. The token that this is given changes whenever a class is registered."""
    modules = [sys.modules[home] for home in HOMES if home in sys.modules]
    bases = [value for module in modules for value in list(vars(module).values()) if type(value) is ABCMeta]
    each = {base: _get_dump(base)[0] for base in bases}
    return set().union(*each.values()), each


def register(base: Any, cls: type) -> str:
    """Register the class; the name that this returns is that of no attribute (see ``_classes._ahead``)."""
    base.register(cls)
    return ""
