"""Something packed, on its way to a worker: a pickle, or what is too large for the socket."""

from __future__ import annotations

import os
from typing import TypeAlias

from parallelkit._executors._process._blocks import Buffered
from parallelkit._worker import _channel


class File:
    """Something packed that is too large for the socket, in a file without a name; closed with its last reference.

    ``header``: what is sent with the descriptor through the socket.
    """

    __slots__ = ("fd", "header", "length")

    def __init__(self, fd: int, length: int, header: bytes = b"") -> None:
        self.fd = fd
        self.length = length
        self.header = header

    def __len__(self) -> int:
        return self.length

    def __del__(self) -> None:
        if hasattr(self, "fd"):  # else a signal handler has raised before it was set
            os.close(self.fd)


Payload: TypeAlias = bytes | File | Buffered
"""Something packed."""

OWN_FILE = 1 << 20  # a pickle of this many bytes or more travels in a file of its own


def payload_of(blob: bytes) -> bytes | File:
    """The pickle itself, or in a file if it is large."""
    return blob if len(blob) < OWN_FILE else file_of(blob)


def file_of(blob: bytes) -> File:
    """The pickle in a file."""
    file = File(_channel.new_file("parallelkit-large"), len(blob))
    _channel.write_all(file.fd, blob)
    return file
