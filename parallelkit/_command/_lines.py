"""The input of ``parallelkit run``: files and stdin, read item by item as needed."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import BufferedReader
from typing import Any

from parallelkit._command import UsageError
from parallelkit._input._portion import Portion
from parallelkit._input._recall import Recalled
from parallelkit._lost import Lost

STDIN = "-"
BLOCK = 1 << 16  # bytes read at a time


class Lines:
    """The lines of several files, one after another; ``-``, or no file at all, is standard input.

    A line comes without its line ending, the first without a byte order mark; bytes that are not UTF-8 become
    surrogate escapes, as in file names. With ``rows`` every line that is not blank is parsed as one JSON value, or is a ``NoJson``.
    With ``null`` the items are what is between NUL bytes, as it is. A file that cannot be read further raises while it is read.
    """

    def __init__(self, paths: Sequence[str], rows: bool = False, null: bool = False) -> None:
        self.paths = [STDIN if path in ("/dev/stdin", "/dev/fd/0") else path for path in paths] or [STDIN]
        self._rows, self._null = rows, null
        self._stdin = 0  # the descriptor from which standard input is read
        for path in self.paths:
            check_readable(path)

    @property
    def from_stdin(self) -> bool:
        """Whether standard input is read."""
        return STDIN in self.paths

    def take_stdin(self, at_the_end: ExitStack) -> None:
        """Replace descriptor 0 by /dev/null meanwhile, so that no task, nor a program that it starts, reads our lines, or those of a shell's loop around us."""
        self._stdin = os.dup(0)
        at_the_end.callback(os.close, self._stdin)
        at_the_end.callback(os.dup2, self._stdin, 0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)

    def __iter__(self) -> Iterator[Any]:
        for path in self.paths:
            place: int | str = os.dup(self._stdin) if path == STDIN else path
            if self._null:
                with open(place, "rb") as blocks:
                    yield from between_nulls(blocks)
            else:
                with open(place, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
                    name = "standard input" if path == STDIN else path
                    yield from parsed(file, name) if self._rows else map(without_end, file)

    def may_wait(self) -> bool:
        """Whether reading may block until somebody writes: on a pipe or a terminal."""
        return any(not stat.S_ISREG(self._status(path).st_mode) for path in self.paths)

    def _status(self, path: str) -> os.stat_result:
        return os.fstat(self._stdin) if path == STDIN else os.stat(path)

    def same_file(self, written: os.stat_result) -> str | None:
        """Return the input that is the file to be written, if one is: writing would destroy what is read."""
        if not stat.S_ISREG(written.st_mode):
            return None
        for path in self.paths:
            if os.path.samestat(self._status(path), written):
                return "standard input" if path == STDIN else path
        return None


def check_readable(path: str) -> None:
    """Raise ``UsageError`` for a file that cannot be read. It is not opened for that, since it may be a pipe."""
    if path == STDIN:
        if sys.stdin is None:
            raise UsageError("argument INPUT: there is no standard input; name files")
        return
    if os.path.isdir(path):
        raise UsageError(f"argument INPUT: {path} is a folder, not a file of lines")
    if not os.path.exists(path):
        raise UsageError(f"argument INPUT: there is no file {path}")
    if not os.access(path, os.R_OK):
        raise UsageError(f"argument INPUT: no permission to read {path}")


def without_end(line: str) -> str:
    r"""Strip a line's ending, that of Unix or of Windows.

    >>> without_end("one\n"), without_end("two\r\n"), without_end(" three ")
    ('one', 'two', ' three ')
    """
    return line[:-2] if line.endswith("\r\n") else line.removesuffix("\n")


def between_nulls(file: BufferedReader) -> Iterator[str]:
    """Yield the texts that end in a NUL byte, each as soon as that has been read; the last may lack it."""
    rest = bytearray()
    while block := file.read1(BLOCK):
        rest += block
        if b"\0" in block:  # else a long text would be copied with each block
            *whole, rest = rest.split(b"\0")
            yield from (str(text, "utf-8", "surrogateescape") for text in whole)
    if rest:
        yield str(rest, "utf-8", "surrogateescape")


@dataclass(frozen=True)
class NoJson:
    """Stands for a line that is not JSON. ``place``, its file and line, is its key where ``--key`` would need the row."""

    place: str
    error: ValueError


def parsed(lines: Iterable[str], name: str) -> Iterator[Any]:
    """Yield the JSON value of every line that is not blank, or a ``NoJson``."""
    for number, line in enumerate(map(without_end, lines), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            row = no_json(name, number, f", column {error.pos + 1}: not JSON: {error.msg}")
        except (ValueError, RecursionError) as error:  # too many digits, or nested brackets
            row = no_json(name, number, f": not JSON: {error}")
        yield row


def no_json(name: str, number: int, what: str) -> NoJson:
    """Make the ``NoJson`` of a line; ``what`` says what is wrong with it."""
    return NoJson(f"{name}:{number}", ValueError(f"{name}, line {number}{what}"))


def recall_no_json(portion: Portion, first: int) -> dict[int, Recalled]:
    """Return the outcomes of the lines that are not JSON: recalled, they cost no attempt and no retry."""
    return {
        offset: Recalled(None, "input", Lost(item.error, 0, None, 0.0, "input"))
        for offset, item in enumerate(portion.items)
        if isinstance(item, NoJson)
    }
