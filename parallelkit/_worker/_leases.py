"""Blocks of which something is used in place, and what becomes of them when this process forks.

Arrays lie in memory that both ends of a channel map (_buffers.py). After a fork, parent and child would write into the same
arrays, where each should have its own, and the other end would write what comes next into those that the child still has.
So before a fork, such memory is made private; its block is never used again.
"""

from __future__ import annotations

import os
from _weakref import ref
from functools import partial
from mmap import mmap

from parallelkit._system import read
from parallelkit._worker._kernel import map_privately

NAME = "parallelkit-block"
"""The name of a block's file."""

_known: dict[int, ref[mmap]] = {}  # by the id of the mapping, which may outlive its block
_private: set[int] = set()


def note(mapping: mmap) -> None:
    """Note the mapping of a block that the other end fills."""
    key = id(mapping)
    _known[key] = ref(mapping, partial(_forget, key))


def _forget(key: int, _: object) -> None:
    _private.discard(key)
    _known.pop(key, None)


def is_private(mapping: mmap) -> bool:
    """Whether it was made private, so that its block must not be used again."""
    return id(mapping) in _private


def is_used(mapping: mmap) -> bool:
    """Whether anything looks at its memory: then a mapping refuses to be resized, before it looks at the new size.

    The reference count of the mapping would not tell, for how many references a look at it has differs from Python to Python.
    """
    try:
        mapping.resize(-1)
    except BufferError:
        return True
    except ValueError:  # -1 is no size
        pass
    return False


def in_use() -> list[mmap]:
    """The mappings in which something is used."""
    mappings = [mapping_of() for mapping_of in list(_known.values())]  # a copy: other threads add to it
    return [mapping for mapping in mappings if mapping is not None and is_used(mapping)]


def more_than(most: int) -> bool:
    """Whether more are in use."""
    return len(_known) > most and len(in_use()) > most  # asked in this order: to look at each takes longer


def _before_fork() -> None:
    shared = [mapping for mapping in in_use() if id(mapping) not in _private]
    if shared:
        _private.update(map(id, shared))
        _make_private(shared)


def _make_private(mappings: list[mmap]) -> None:
    from ctypes import addressof, c_char

    inodes, fds = _inodes_by_address(), _fds_by_inode()
    for mapping in mappings:
        address = addressof(c_char.from_buffer(mapping))
        map_privately(address, len(mapping), fds[inodes[address]])


def _inodes_by_address() -> dict[int, int]:
    lines = [line.split() for line in read("/proc/self/maps").splitlines() if f"/memfd:{NAME}" in line]
    return {int(words[0].partition("-")[0], 16): int(words[4]) for words in lines}


def _fds_by_inode() -> dict[int, int]:
    fds = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{entry}").startswith(f"/memfd:{NAME}"):
                fds[os.stat(int(entry)).st_ino] = int(entry)
        except OSError:
            continue  # closed meanwhile, as is the descriptor that listed the others
    return fds


os.register_at_fork(before=_before_fork)
