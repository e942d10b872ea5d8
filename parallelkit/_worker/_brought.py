"""Functions that come with calls: what they need is loaded here, outside the time of the attempts that bring them.

Such an attempt has begun all the same, so it, and no other, is to blame if the worker ends meanwhile.
"""

from __future__ import annotations

from sys import modules

from parallelkit._system import monotonic
from parallelkit._worker import _channel
from parallelkit._worker._channel import BRINGING, HEAD, MASK, PHASE, WAITING
from parallelkit._worker._script import NAMES
from parallelkit._worker._travel import unpack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from mmap import mmap
    from typing import Any

_HOME = 14
"""Where the name of the home is in a pickle that begins with it; its length is the byte before."""

_LONGEST = 255
"""Length up to which a text is pickled in this way."""

_ring: _channel.Ring | None = None
_keep: Callable[[], None]
_imported = {b""}


def attach(ring: _channel.Ring, keep: Callable[[], None]) -> None:
    """Called once in a worker; ``keep`` keeps what an import has changed around tasks."""
    global _ring, _keep
    _ring, _keep = ring, keep


def as_told(home: str) -> str:
    """The name of the module that a function needs, as a worker is told it; empty if that is not known, or is the script's."""
    return home if home.isascii() and len(home) <= _LONGEST and home not in NAMES else ""


def unpack_call(blob: bytes | mmap, buffers: Iterable[Any] = ()) -> Any:
    """Unpickle a call, once the module that its function needs is loaded."""
    home = blob[_HOME : _HOME + blob[_HOME - 1]]
    if home not in _imported:
        _imported.add(home)
        with OffTheClock():
            try:
                __import__(home.decode())
            except Exception:
                pass  # unpickling the call raises it, too, unless the function can do without the module
    return unpack(blob, buffers)


class OffTheClock:
    """While something is loaded for an attempt; at the end the attempt begins anew. Does nothing outside workers."""

    def __enter__(self) -> None:
        if _ring is not None:
            self._modules = len(modules)
            _ring.head[PHASE] = BRINGING

    def __exit__(self, *_: object) -> None:
        if _ring is not None:
            if len(modules) != self._modules:
                _keep()
            _ring.starts[_ring.head[HEAD] & MASK] = monotonic()
            if _channel.WEAKLY_ORDERED:
                _channel.barrier()
            _ring.head[PHASE] = WAITING
