"""Packs a run's items, in order and not far ahead, in the run's own thread: pickling runs the user's code."""

from __future__ import annotations

from _pickle import PicklingError, dumps
from collections import deque
from collections.abc import Callable
from functools import cache
from itertools import chain
from sys import modules
from types import FunctionType
from typing import Any, TypeAlias

from parallelkit._executors._contract import Block, Call, Ended, Job, Ticket
from parallelkit._executors._process._at_import import AtImportError, refuse_function, refuse_packed
from parallelkit._executors._process._blocks import BlockPool
from parallelkit._executors._process._carried import CarriedClasses, carry
from parallelkit._executors._process._culprit import INSIDE, advice, find_culprit, hide_inner_notes, innermost
from parallelkit._executors._process._definitions import Definitions
from parallelkit._executors._process._generators import AlikeError, Neighbours, may_draw
from parallelkit._executors._process._lane import Batch
from parallelkit._executors._process._payload import OWN_FILE, Payload, payload_of
from parallelkit._executors._process._preload import module_for, module_of_class
from parallelkit._executors._process._reserve import fd_share, is_shortage, is_too_large, shortage
from parallelkit._raised import describe_error, is_interrupt, tolerated
from parallelkit._system import monotonic
from parallelkit._tasks import call_star
from parallelkit._worker import _faults
from parallelkit._worker._buffers import pack_apart, with_buffers
from parallelkit._worker._call_functions import as_sent
from parallelkit._worker._channel import APART
from parallelkit._worker._chunk import Chunk
from parallelkit._worker._tracebacks import detached
from parallelkit._worker._travel import Apart, describe

QUEUED_BYTES = 64 << 20  # of packed items that have not ended; exceeded only to have one item for each worker
QUEUED_FILES = 32  # of them that hold a descriptor, or two for each worker if that is more, up to their share
SHORT = 1024  # a str or bytes up to this length is an atom
FEW = 16  # atoms in a tuple that is handled like one
FADING = 0.5  # what is left of the largest size each time that some are packed: one in a million must not slow down the rest

ATOMS: frozenset[type] = frozenset([int, float, bool, type(None), complex])
TEXTS: frozenset[type] = frozenset([str, bytes])
"""Immutable, and unpickled without running any code of the user's: a batch of them may be one pickle; as may what ``_LOADED_LATE``
finds: decimals, numbers of numpy's, dates, and times without a zone or with a fixed one."""

Pack: TypeAlias = Callable[[object, CarriedClasses], Payload]
"""Packs an item; the classes are those that have been looked at."""

MOST_CLASSES = 64
"""How many are kept of a run: each item may bring one of its own."""


class Packing:
    """The items that wait to be packed, and how many may be: an item's size is known only once it is packed.

    ``definitions``: as in ``CarriedClasses``.
    """

    def __init__(
        self, width: Callable[[], int], pack: Pack, job: Job, definitions: Definitions | None = None
    ) -> None:
        self.line: deque[Ticket] = deque()
        self.bytes = 0  # of packed items that have not ended
        self.files = 0  # of them that hold a descriptor
        self._largest = 1.0  # bytes: how large the next item may be, by those before it
        self._width = width
        self._pack = pack
        self._job = job
        self._neighbours = Neighbours()
        self._definitions = definitions
        self._classes = CarriedClasses(definitions)
        self._latest: tuple[object, str] = None, ""  # a call's function, and its module

    def space(self, ahead: int) -> int:
        """How many more items may be packed, by bytes and by descriptors, with ``ahead`` of them packed and not ended."""
        width = self._width()
        if self.files and self.files >= min(max(2 * width, QUEUED_FILES), fd_share()):
            return 0
        return max(width - ahead, int((QUEUED_BYTES - self.bytes) // self._largest))

    def pack(
        self, ahead: int, tickets: list[Ticket], payloads: list[Payload], refused: list[Block | Ended]
    ) -> None:
        """Pack as many items as there is space for; add them to ``tickets`` and ``payloads``, or to ``refused``.

        If memory or descriptors run out, the rest stays in line as long as other items have not ended.
        """
        space, classes = self.space(ahead), self._looked_at()
        if self.line and space > 0:
            self._largest = max(1.0, self._largest * FADING)
        while self.line and space > 0:
            ticket = self.line[0]  # removed only when it is dealt with: Ctrl-C may interrupt this
            try:
                payload = self._packed(ticket, classes)
            except BaseException as error:
                if (
                    is_interrupt(error) and not self._job.shared
                ):  # calls are packed in a thread that nobody interrupts
                    raise
                if is_shortage(error) and ahead + len(tickets) > 0:
                    return  # there will be room when some of those have ended
                refused.append(refusal(ticket, self._job, error))
            else:
                tickets.append(ticket)
                payloads.append(payload)
                space = self._left(space, payload, ahead + len(tickets))
            self.line.popleft()

    def _looked_at(self) -> CarriedClasses:
        """The script's classes in items: those of a run are looked at once, as its function is; those of calls each time."""
        if self._job.fn is None:
            return CarriedClasses(self._definitions)  # not kept: it refers to the function of its last call
        if len(self._classes.seen) > MOST_CLASSES:
            self._classes = CarriedClasses(self._definitions)
        return self._classes

    def _packed(self, ticket: Ticket, classes: CarriedClasses) -> Payload:
        index, _, item, _ = ticket
        if type(item) in TEXTS and len(item) < APART:
            return dumps(item, 5)  # it refers to nothing; to search the pickle takes longer than to make it
        payload = self._pack(item if self._job.fn is not None else self._with_module(item, classes), classes)
        if may_draw(payload) and not self._job.shared:
            self._neighbours.refuse_alike(index, item, self._job.label)
        return payload

    def _with_module(self, call: Call, classes: CarriedClasses) -> tuple[Any, ...]:
        """A call as it is packed: after the name of the module that a worker needs for its function."""
        fn = _function_of(call)
        refuse_function(fn)
        latest, module = self._latest
        if fn is not latest:
            module = as_sent(module_for(fn))
            if module and type(fn) is FunctionType:
                self._latest = fn, module  # nothing else may be kept: it may refer to the user's objects
            else:  # it may be a function of the script
                call = carry(call, classes, several=not self._job.shared)
        return module, *call

    def _left(self, space: int, payload: Payload, ahead: int) -> int:
        size, is_file = len(payload), type(payload) is not bytes
        self.bytes += size
        self.files += is_file
        if size <= self._largest and not is_file:
            return space - 1
        self._largest = max(self._largest, size)
        return self.space(ahead)


def taken_by(batch: Batch) -> tuple[int, int]:
    """How many bytes, and how many descriptors, the packed items of a batch take."""
    if batch.payloads is None:
        return 0, 0
    return batch.size(), len(batch.payloads) - list(map(type, batch.payloads)).count(bytes)


def refusal(ticket: Ticket, job: Job, error: BaseException) -> Ended:
    """The failure of an attempt whose item could not be packed."""
    index, _, item, _ = ticket
    label = job.label(index)
    told: BaseException
    if is_shortage(error) or is_too_large(error):
        told = shortage(error, f"the item of {label} could not be sent")
    elif isinstance(error, AlikeError):
        told = TypeError(str(error))
    elif isinstance(error, AtImportError):
        told = error
    else:
        blame = _blame_call if job.fn is None else _blame_item
        told = _faults.unpicklable(_blamed(blame, label, item, error), isinstance(error, PicklingError))
        told.__cause__ = None if is_interrupt(error) else detached(error)
    return Ended(index, told, "", None, monotonic(), None, final=not is_shortage(error))


def _blamed(
    blame: Callable[[str, Any, BaseException], str], label: str, item: Any, error: BaseException
) -> str:
    """What is told of an error of pickling: which part is to blame, if that can be found."""
    if not is_interrupt(
        error
    ):  # else it is a call's own, and a search for what raised it would raise it again
        with tolerated():  # a proxy may raise whenever it is looked at, even for its class
            return blame(label, item, error)
    return f"{label} cannot be sent to a worker process: pickling it raised {describe_error(error)}"


def _blame_item(label: str, item: object, error: BaseException) -> str:
    name, culprit, cause = innermost(describe(item), item, error)
    hide_inner_notes(error, cause)
    cure = "pass plain data and build the rest inside the task" if culprit is item else INSIDE
    return (
        f"the item of {label} cannot be sent to a worker process: "
        f"{name} cannot be pickled {advice(culprit, cause, cure)}"
    )


def _blame_call(label: str, call: Call, error: BaseException) -> str:
    _, args, kwargs = call
    fn = _function_of(call)
    if call[0] is call_star:
        args = args[1:]
    name, culprit, cause = find_culprit(fn, args, kwargs, error)
    hide_inner_notes(error, cause)
    kind = describe(culprit)
    what = "" if kind in name else f"is {kind}, which "  # the name of an attribute has its class
    return (
        f"{label} cannot be sent to a worker process: {name} {what}cannot be pickled {advice(culprit, cause)}"
    )


def _function_of(call: Call) -> object:
    """The caller's own function, without our wrappers."""
    fn, args, _ = call
    return args[0] if fn is call_star else fn.fn if type(fn) is Chunk else fn


class Packer:
    """Packs items for processes on this machine: large buffers go into the engine's blocks.

    If the items of many runs hold many blocks already, and so descriptors, smaller buffers stay in the pickles. That is looked
    at after each item of some size, for the next one: to look before each small item would cost it more. ``calls``: the items
    are calls.
    """

    def __init__(self, pool: BlockPool, calls: bool) -> None:
        self._pool, self._calls = pool, calls
        self._apart = self._usual = Apart(APART)
        self._sparing = Apart()

    def __call__(self, item: Any, classes: CarriedClasses) -> Payload:
        apart = self._apart
        if self._calls:
            item = with_buffers(item, apart.least)
        blob = pack_apart(item, apart, classes)
        refuse_packed(blob)
        if not apart.buffers and len(blob) < APART:
            return blob
        if len(blob) >= apart.least and (apart.buffers or len(blob) < OWN_FILE):
            # Through the socket it would take two to three times as long.
            apart.buffers.append(memoryview(blob))
            blob = b""
        payload = self._pool.put(apart.take(), blob) if apart.buffers else payload_of(blob)
        lent = len(self._pool.lent)
        self._apart = self._sparing if lent > QUEUED_FILES and lent >= fd_share() else self._usual
        return payload


def all_atoms(items: list[Any]) -> bool:
    """Whether all are atoms, or short tuples of atoms with no more text than an atom, so that one pickle may hold them all."""
    most = SHORT * len(items)
    if set(map(type, items)) == {tuple} and max(map(len, items)) <= FEW:
        items = list(chain.from_iterable(items))
    kinds = set(map(type, items))
    if kinds <= ATOMS:
        return True
    for module, atoms_among in _LOADED_LATE.items():
        if any(module_of_class(kind) == module for kind in kinds):
            kinds -= atoms_among(items)
    if not kinds <= ATOMS | TEXTS:
        return False
    lengths = [len(item) for item in items if type(item) in TEXTS]
    return max(lengths, default=0) <= SHORT and sum(lengths) <= most


def _dates(items: list[Any]) -> frozenset[type]:
    from datetime import date, datetime, timedelta, timezone

    fixed = (type(None), timezone)
    if all(type(time.tzinfo) in fixed for time in items if type(time) is datetime):
        return frozenset([date, timedelta, datetime])
    return frozenset([date, timedelta])


def _decimals(_: list[Any]) -> frozenset[type]:
    from decimal import Decimal

    return frozenset([Decimal])


@cache
def _numbers_of_numpy() -> frozenset[type]:
    """Its types of numbers and truth values."""
    return frozenset([modules["numpy"].dtype(code).type for code in "?bhilqBHILQefdgFDG"])


_LOADED_LATE: dict[str, Callable[[list[Any]], frozenset[type]]] = {
    "datetime": _dates,
    "decimal": _decimals,
    "numpy": lambda _: _numbers_of_numpy(),
}
"""The types of atoms in modules that a program without such items need not load; asked once there is an item of the module's."""
