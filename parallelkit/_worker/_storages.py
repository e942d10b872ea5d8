"""The memory of PyTorch's tensors, which travels as a buffer.

Torch pickles it in a file format of its own, within the pickle, which takes ten times as long. At the other end a tensor
gets memory of torch's own, as from torch's pickle, since torch can neither resize other memory nor know it to be read-only.
(In a checkpoint it is as torch pickles it, for another version of this module may read that.)
"""

from __future__ import annotations

from _pickle import PickleBuffer
from copyreg import dispatch_table
from functools import cache
from sys import modules

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any

STORAGES = "torch.storage"
"""The module of the classes that have the memory; while it is not loaded, there is no tensor."""


def with_storages(pickler: Any) -> Any:
    """A subclass of this pickler that sends them so; the pickler itself while torch, or numpy, is not loaded."""
    module = modules.get(STORAGES)
    untyped, typed = getattr(module, "UntypedStorage", None), getattr(module, "TypedStorage", None)
    if untyped is None or typed is None or "numpy" not in modules:
        return pickler
    made = _with_storages(pickler)
    known = getattr(pickler, "dispatch_table", None)
    table = known if isinstance(known, dict) else dispatch_table
    made.dispatch_table.update({**table, untyped: reduce_storage, typed: reduce_typed})
    return made


@cache
def _with_storages(base: Any) -> Any:
    return type(base.__name__, (base,), {"dispatch_table": {}})


def reduce_storage(storage: Any) -> Any:
    """For a pickler: the bytes of a storage. One on another device is left to torch."""
    if storage.device.type != "cpu":
        return storage.__reduce__()
    return make_storage, (PickleBuffer(_bytes_of(storage)),)


def reduce_typed(storage: Any) -> Any:
    """For a pickler: the same for a storage with a type, which is what most tensors give."""
    untyped = storage._untyped_storage
    if untyped.device.type != "cpu":
        return storage.__reduce__()
    return make_typed, (untyped, storage.dtype)


def make_storage(content: Any) -> Any:
    from torch import UntypedStorage

    with memoryview(content) as content:
        storage = UntypedStorage(content.nbytes, device="cpu")
        memoryview(_bytes_of(storage))[:] = content
    return storage


def make_typed(untyped: Any, dtype: Any) -> Any:
    from torch import TypedStorage

    return TypedStorage(wrap_storage=untyped, dtype=dtype, _internal=True)


def _bytes_of(storage: Any) -> Any:
    """The memory of a storage, as an array of numpy."""
    from numpy import asarray, empty, uint8

    return asarray(_Memory(storage)) if storage.nbytes() else empty(0, uint8)


class _Memory:
    """What numpy makes an array of, and keeps as long. After ``Tensor.numpy()``, torch would no longer resize the storage."""

    def __init__(self, storage: Any) -> None:
        self.storage = storage
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (storage.nbytes(),),
            "data": (storage.data_ptr(), False),
        }
