"""The longer commands of the command line; ``_cli`` parses and calls them."""

from __future__ import annotations

import os
import sys


class UsageError(Exception):
    """The command cannot be carried out as it was given; the text names the option or argument."""


def own_version() -> str:
    """The version of the package, which whoever runs a command has imported already."""
    version: str = sys.modules["parallelkit"].__version__
    return version


def say(text: str) -> None:
    """Tell the user, on stderr. That nobody can hear it there is no failure of the command."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # what is left goes nowhere
