"""The longer commands of the command line; ``_cli`` parses and calls them."""

from __future__ import annotations

import sys


class UsageError(Exception):
    """The command cannot be carried out as it was given; the text names the option or argument."""


def own_version() -> str:
    """The version of the package, which whoever runs a command has imported already."""
    version: str = sys.modules["parallelkit"].__version__
    return version
