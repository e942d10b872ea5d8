"""Checks what a worker says; what cannot be true is a GarbageError, which ends the worker.

A task may overwrite its process's memory, or write into descriptors that are not its own. The result must not
crash or hang this process, or fill its memory.
"""

from __future__ import annotations

import fcntl
import os
from array import array
from errno import ENOMEM
from mmap import mmap

from parallelkit._worker import _channel, _kernel
from parallelkit._worker._channel import WORD, GarbageError

MAPPED = 1 << 20  # a mapping keeps a descriptor open, so smaller files are read at once
_MOST_READ = 1 << 30

_KINDS = bytes(range(_channel.DICT + 1))
_TOP = 7
_INSTANTS = b"\x3f\x40\x41"
"""The top bytes of floats from 0.0001 to 8e9; not of NaN, infinity or negative numbers."""


def word_of(body: bytes) -> int:
    """The number with which a frame begins."""
    if len(body) < WORD.size:
        raise GarbageError(f"a frame of {len(body)} bytes")
    return int(WORD.unpack_from(body)[0])


def check_kinds(kinds: bytes) -> None:
    """Check that every result is of a known kind."""
    if kinds.translate(None, _KINDS):
        raise GarbageError("a result of a kind that there is not")


def check_instants(started: array[float], ended: array[float], since: float, now: float, each: bool) -> None:
    """Check that the attempts ran between ``since`` and ``now``: with ``each`` all, else the first and the last.

    That all instants are plausible numbers is checked in any case.
    """
    absurd = (started.tobytes()[_TOP::8] + ended.tobytes()[_TOP::8]).strip(_INSTANTS)
    if absurd or not since <= started[0] <= ended[-1] <= now:
        raise GarbageError(f"attempts from {started[0]} to {ended[-1]}, between {since} and {now}")
    if each and (min(started) < since or max(ended) > now):
        raise GarbageError("an attempt in the future, or before the one that came before it")


def content_of(fd: int, length: int, to_keep: bool) -> bytes | mmap:
    """The content of a file, whose descriptor is closed: mapped, if it is ``to_keep`` or large; else read.

    A file that cannot be mapped is read, too. Raises OSError if there is no memory for it.
    """
    try:
        check_file(fd, length)
        if to_keep or length >= MAPPED:
            try:
                return _channel.map_file(fd, length, keeps_fd=to_keep)
            except OSError:
                pass  # no descriptor, which a mapping may take, or no address space
        return _read_whole(fd, length)
    except (ValueError, OverflowError) as error:
        raise GarbageError(f"a file that cannot be mapped: {error}") from error
    except MemoryError as error:
        raise OSError(ENOMEM, os.strerror(ENOMEM)) from error
    finally:
        os.close(fd)


def _read_whole(fd: int, length: int) -> bytes:
    """Read in pieces: the system reads at most 2 GiB at a time."""
    pieces: list[bytes] = []
    at = 0
    while at < length:
        pieces.append(os.pread(fd, min(length - at, _MOST_READ), at))
        if not pieces[-1]:
            raise GarbageError("a file that ends before its end")
        at += len(pieces[-1])
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def check_file(fd: int, length: int) -> None:
    """Check that a file is as long as told, in pages that are there, and seal it: reading beyond its end would kill us."""
    try:
        fcntl.fcntl(fd, _kernel.F_ADD_SEALS, _kernel.F_SEAL_SHRINK)
        told = os.fstat(fd)
    except OSError as error:
        raise GarbageError(f"a file that cannot be sealed: {error}") from error
    there = told.st_blocks * 512 + _channel.HOLES
    if not 0 < length <= min(told.st_size, there):
        raise GarbageError(
            f"a file of {told.st_size} bytes, {there} of them there, that should have {length}"
        )
