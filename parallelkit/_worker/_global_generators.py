"""Global random generators, which a module has for everybody: each process has its own, so they travel by name, without their state.

``from random import randint`` gives a method of one, and scipy's distributions hold one. With the state that it has here,
each worker, or each call, would draw the same numbers.
"""

from __future__ import annotations

from copyreg import dispatch_table
from sys import modules

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any

GLOBAL = (("random", "_inst"), ("numpy.random.mtrand", "_rand"))
"""What ``random.random()`` and ``numpy.random.random()`` draw from."""

HINT = b"andom"
"""Part of every pickle of a generator with its state. For a pickle without it, the functions below need not be called."""

MARKS = (b"\x06Random\x94", b"__randomstate_ctor\x94")
"""In a pickle of one of these, or of another generator of its class."""

GENERATOR = b"__generator_ctor\x94"
"""In a pickle of a numpy ``Generator``. No module has one of these for everybody."""


def may_have_global(blob: bytes) -> bool:
    """Whether a pickle may have a module's generator with its state: then it must be made anew, by a pickler that knows these."""
    return "random" in modules and any(blob.rfind(mark) >= 0 for mark in MARKS)


def may_have_any(blob: bytes) -> bool:
    """Whether a pickle may have any generator with its state. That a text in it has the word "random" is not enough."""
    return any(blob.rfind(mark) >= 0 for mark in (*MARKS, GENERATOR))


def is_global(generator: object) -> bool:
    """Whether each process has this generator itself: a module's, or one that draws from the system."""
    system = getattr(modules.get("random"), "SystemRandom", ())
    return issubclass(type(generator), system) or any(
        generator is getattr(modules.get(module), name, None) for module, name in GLOBAL
    )


def send_by_name(table: MutableMapping[type, Any]) -> None:
    """Have a pickler with this dispatch table send the generators of modules by name."""
    for module, name in GLOBAL:
        known = getattr(modules.get(module), name, None)
        if known is not None:
            table[type(known)] = _reduce
    system = getattr(modules.get("random"), "SystemRandom", None)
    if system is not None:
        table[system] = _reduce_stateless  # ``secrets`` has one, for ``choice`` and ``randbelow``


def _reduce(generator: Any) -> Any:
    for module, name in GLOBAL:
        if generator is getattr(modules.get(module), name, None):
            return global_generator, (module, name)
    known = dispatch_table.get(type(generator))
    return generator.__reduce_ex__(5) if known is None else known(generator)


def _reduce_stateless(generator: Any) -> Any:
    return type(generator), ()


def global_generator(module: str, name: str) -> Any:
    """The generator that a module of this process has under a name."""
    __import__(module)
    return getattr(modules[module], name)
