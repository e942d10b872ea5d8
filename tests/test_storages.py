"""The memory of PyTorch's tensors travels as a buffer. A small module stands for torch: it has what of torch's is used."""

import gc
import pickle
import sys

import numpy as np
import pytest
from array_tasks import give_back

from parallelkit import run_parallel
from parallelkit._executors._process import _blocks
from parallelkit._worker._by_name import dump_by_name
from parallelkit._worker._channel import LARGE
from parallelkit._worker._storages import with_storages
from parallelkit._worker._travel import Apart, pack, unpack

TORCH = """
from .storage import TypedStorage, UntypedStorage

class dtype:
    def __reduce__(self):
        return "uint8"

uint8 = dtype()
"""

STORAGE = """
import numpy as np
from types import SimpleNamespace

class UntypedStorage:
    slow = 0

    def __init__(self, length, device="cpu"):
        self.content = np.zeros(length, np.uint8)
        self.device = SimpleNamespace(type=device)

    def nbytes(self):
        return self.content.nbytes

    def data_ptr(self):
        return self.content.ctypes.data

    def __reduce__(self):
        UntypedStorage.slow += 1
        return slowly, (self.content.tobytes(), self.device.type)

class TypedStorage:
    def __init__(self, wrap_storage, dtype, _internal):
        self._untyped_storage, self.dtype = wrap_storage, dtype

    def __reduce__(self):
        return TypedStorage, (self._untyped_storage, self.dtype, True)

def slowly(content, device):
    storage = UntypedStorage(0, device)
    storage.content = np.frombuffer(content, np.uint8)
    return storage
"""


@pytest.fixture
def torch(tmp_path, monkeypatch):
    """The module that stands for torch; worker processes find it, too."""
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text(TORCH)
    (package / "storage.py").write_text(STORAGE)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    import torch

    yield torch
    for name in ("torch", "torch.storage"):
        sys.modules.pop(name, None)


def storage_of(torch, length, device="cpu"):
    storage = torch.UntypedStorage(length, device)
    storage.content[:] = np.arange(length) % 251
    return storage


@pytest.mark.all
def test_large_storages_travel_in_blocks_both_ways(torch, monkeypatch):
    """They arrive as they are, and not by torch's own pickle, which takes ten times as long."""
    put, blocks, load, leased = _blocks.BlockPool.put, [], _blocks.load_leased, []
    monkeypatch.setattr(_blocks.BlockPool, "put", lambda *args: blocks.append(1) or put(*args))
    monkeypatch.setattr(
        "parallelkit._executors._process._decode.load_leased", lambda *args: leased.append(1) or load(*args)
    )
    storage = storage_of(torch, 2 * LARGE)
    typed = torch.TypedStorage(storage, torch.uint8, True)
    results = run_parallel(give_back, [storage, [typed, typed]], executor="processes", max_workers=1)
    untyped, (back, again) = results.values()
    assert np.array_equal(storage.content, untyped.content)
    assert np.array_equal(storage.content, back._untyped_storage.content)
    assert back is again
    assert back.dtype is torch.uint8
    assert (2, 2, 0) == (len(blocks), len(leased), torch.UntypedStorage.slow)


@pytest.mark.parametrize("length", [0, 3, LARGE])
def test_memory_that_arrives_is_torchs_own(torch, length):
    """It is a copy that may be written to, whatever the buffer that it came in."""
    storage, apart = storage_of(torch, length), Apart()
    blob = pack(storage, apart)
    back = unpack(blob, [bytes(buffer) for buffer in apart.take()])
    assert np.array_equal(storage.content, back.content)
    assert back.content.flags.owndata
    assert back.content.flags.writeable


def test_memory_outlives_its_storage_while_it_is_sent(torch):
    """Some tensors are pickled as storages that are made for it, and that nobody else keeps."""

    class Passing:
        def __reduce__(self):
            return list, ((storage_of(torch, LARGE),),)

    apart = Apart()
    pack(Passing(), apart)
    (buffer,) = apart.take()
    gc.collect()
    again = storage_of(torch, LARGE)
    again.content[:] = 0
    assert np.array_equal(np.arange(LARGE) % 251, buffer)


def test_storages_in_what_plain_pickle_does_not_serve(torch):
    """In arguments for all tasks, beside a function of the script, and beside classes of the script that are known there."""
    storage = storage_of(torch, LARGE)
    for thing in (storage, (storage, lambda: None)):
        for by_file in (False, True):
            apart = Apart()
            blob = pack(thing, apart, by_file=by_file)
            assert LARGE > len(blob)
            assert [LARGE] == [buffer.nbytes for buffer in apart.take()]
    apart = Apart()
    dump_by_name(storage, apart, {id(torch.dtype): "its number"})
    assert [LARGE] == [buffer.nbytes for buffer in apart.take()]
    assert 0 == torch.UntypedStorage.slow


def test_a_storage_on_another_device_is_torchs_own_business(torch):
    """There is no memory here to take it from."""
    storage = storage_of(torch, LARGE, device="cuda")
    for thing in (storage, torch.TypedStorage(storage, torch.uint8, True)):
        apart = Apart()
        back = unpack(pack(thing, apart))
        assert [] == apart.take()
        assert "cuda" == getattr(back, "_untyped_storage", back).device.type
    assert 2 == torch.UntypedStorage.slow


def test_what_is_kept_is_as_torch_pickles_it(torch):
    """Without buffers apart, as for a checkpoint, which another version may read."""
    blob = pack(storage_of(torch, 3))
    assert b"parallelkit" not in blob
    assert 1 == torch.UntypedStorage.slow


def test_nothing_is_changed_while_torch_is_not_loaded(torch, monkeypatch):
    """The pickler is the one that was given; so it is with a torch without numpy, or another module of that name."""
    monkeypatch.delitem(sys.modules, "torch.storage")
    assert with_storages(pickle.Pickler) is pickle.Pickler
    monkeypatch.setitem(sys.modules, "torch.storage", object())
    assert with_storages(pickle.Pickler) is pickle.Pickler
    monkeypatch.setitem(sys.modules, "torch.storage", torch.storage)
    monkeypatch.delitem(sys.modules, "numpy")
    assert with_storages(pickle.Pickler) is pickle.Pickler
