"""The longer commands of the command line; ``_cli`` parses their arguments and calls them."""

from __future__ import annotations

import os
import sys

WELL, FAILED, USAGE, INTERRUPTED, UNREAD = 0, 1, 2, 130, 141  # exit codes: see ``_cli``


class UsageError(Exception):
    """The command cannot be carried out as given; the text names the option or argument at fault."""


def own_version() -> str:
    """Return the version of the package, which is imported before any command runs."""
    version: str = sys.modules["parallelkit"].__version__
    return version


def say(text: str) -> None:
    """Print a message on stderr. If stderr cannot be written to, that is no failure of the command."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # for what is still buffered
