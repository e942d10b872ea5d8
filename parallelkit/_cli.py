"""The command line: ``parallelkit COMMAND``.

Exit codes: 0 all well, 1 something failed, 2 wrong usage or a package missing, 130 interrupted, 141 the
reader of our output went away (the last two are what a shell says of SIGINT and SIGPIPE).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

WELL, FAILED, USAGE, INTERRUPTED, UNREAD = 0, 1, 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        arguments = make_parser().parse_args(argv)
    except SystemExit as end:  # argparse has said what is wrong, or shown the help
        return USAGE if end.code else WELL
    try:
        code: int = arguments.command(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes nowhere
        return UNREAD
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return code


def make_parser() -> argparse.ArgumentParser:
    """One parser for each command; ``command`` is the function that carries it out."""
    parser = argparse.ArgumentParser(
        "parallelkit", description="Run independent tasks in threads or processes."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_demo(commands)
    return parser


def add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``parallelkit demo``."""
    demo = commands.add_parser(
        "demo",
        help="the main job on real input, in half a minute",
        description="Ask five local HTTP sources in threads, and count the tokens of the standard library in "
        "processes, with hangs, crashes and errors among them. Fails when anything it prints is not so.",
    )
    demo.set_defaults(command=demonstrate)


def demonstrate(arguments: argparse.Namespace) -> int:
    """See ``_demo``."""
    if find_spec("requests") is None:
        print("the demo needs requests: pip install 'parallelkit[http]'", file=sys.stderr)
        return USAGE
    from parallelkit._demo import run_demo

    return WELL if run_demo() else FAILED
