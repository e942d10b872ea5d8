"""The command line: ``parallelkit COMMAND``.

Exit codes: 0 all well, 1 something failed, 2 wrong usage or a package missing, 130 interrupted, 141 the
reader of our output went away (the last two are what a shell says of SIGINT and SIGPIPE).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from io import TextIOWrapper

from parallelkit._command import UsageError, own_version, say
from parallelkit._command._arguments import at_least, expression, failures, file_or_stdout, rate, seconds

WELL, FAILED, USAGE, INTERRUPTED, UNREAD = 0, 1, 2, 130, 141

EXAMPLES = """\
examples:
  parallelkit run fetch.py:get urls.txt --output pages.jsonl --timeout 30 --retries 2
      one call a line, in threads; every outcome is a line of pages.jsonl as soon as it is there
  cat urls.txt | parallelkit run fetch.py:get --rate 10/1s --by 'item.split("/")[2]' | jq -c 'select(.ok | not)'
      no more than ten starts a second for each host; what failed
  parallelkit run model:score rows.jsonl --jsonl --key 'item["id"]' --executor processes \\
          --checkpoint score.journal --output scores.jsonl --report scores.html
      one call a row (a dict), in processes; the same command again makes only what is missing
  seq 1000000 | parallelkit run builtins:int --quiet | head
      input is read as it is needed, and the run ends when nobody reads its output

A line of output has key (the position of the item in the input, from 0, unless --key says otherwise), ok, value or
error and error_type, attempts (0: from the checkpoint, or no JSON) and seconds. "repr": true marks a value that is no JSON and
stands there as Python shows it. The expressions of --key and --by are Python code and are run as such; they know
item and the names of MODULE. Exit code: 0 all well, 1 some failed, 2 wrong usage, 130 interrupted.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    prepare_streams()
    try:
        arguments = make_parser().parse_args(argv)
    except SystemExit as end:  # argparse has said what is wrong, or shown the help
        return USAGE if end.code else WELL
    try:
        code: int = arguments.command(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except UsageError as error:
        say(f"{arguments.usage}: error: {error}")
        return USAGE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes nowhere
        return UNREAD
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    return code


def prepare_streams() -> None:
    """Have what is closed of stdin, stdout and stderr lead nowhere: the next file that is opened would take its place.

    What stdout cannot spell, it shows as stderr does.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def make_parser() -> argparse.ArgumentParser:
    """One parser for each command; ``command`` is the function that carries it out."""
    parser = argparse.ArgumentParser(
        "parallelkit", description="Run independent tasks in threads or processes.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"parallelkit {own_version()}")
    parser.set_defaults(usage=parser.prog)
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=Intermixed
    )
    add_run(commands)
    add_doctor(commands)
    add_demo(commands)
    return parser


class Intermixed(argparse.ArgumentParser):
    """Takes options also between and behind the inputs, as Unix tools do."""

    _mixing = False

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]  # as its base class, which has overloads
        """As the base class, which calls this method again while it mixes."""
        if self._mixing:
            return super().parse_known_args(args, namespace)
        self._mixing = True
        try:
            found, unknown = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False
        if unknown:  # said here, so that it is said with the usage of this command
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def add_run(commands: argparse._SubParsersAction[Intermixed]) -> None:
    """``parallelkit run``."""
    run = commands.add_parser(
        "run",
        help="a Python function over the lines of files or stdin",
        description="Call a Python function once for each line, at the same time, and write every outcome as a line "
        "of JSON as soon as it is there.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="parallelkit run MODULE:FUNCTION [INPUT ...] [options]",
        allow_abbrev=False,
    )
    add = run.add_argument
    add("target", metavar="MODULE:FUNCTION", help="module by name or FILE.py, and a function in it")
    add("inputs", metavar="INPUT", nargs="*", default=[], help="files of lines; - or none: standard input")
    add(
        "--jsonl",
        action="store_true",
        help="lines are JSON, blank ones aside; the function is given their value, a dict say",
    )
    add_engine_options(run.add_argument_group("where and how long").add_argument)
    add_output_options(run.add_argument_group("what comes out").add_argument)
    run.set_defaults(command=run_function, usage=run.format_usage() + run.prog)


def add_engine_options(group: Callable[..., object]) -> None:
    """What becomes of a task."""
    group(
        "--executor", choices=("threads", "processes", "inline"), default="threads", help="default: threads"
    )
    group(
        "--max-workers",
        type=at_least(1),
        metavar="N",
        help="at a time; default: cpus + 4 threads (at most 32), or a process for each cpu",
    )
    group("--timeout", type=seconds, metavar="TIME", help="for one attempt: 30, 500ms, 5m, 1h")
    group("--run-timeout", type=seconds, metavar="TIME", help="for the whole run")
    group("--retries", type=at_least(0), default=0, metavar="N", help="further attempts after a failure")
    group(
        "--max-failures",
        type=failures,
        metavar="N",
        help="stop at so many: 10; or at a share of the outcomes so far, once there are 20: 0.2, 20%%",
    )
    group(
        "--rate",
        type=rate,
        action="append",
        default=[],
        metavar="N/TIME",
        help="at most N starts in TIME: 10/1s",
    )
    group(
        "--by", type=expression, metavar="EXPR", help="the group of an item, for each of which --rate holds"
    )


def add_output_options(group: Callable[..., object]) -> None:
    """What becomes of its outcome."""
    group("--key", type=expression, metavar="EXPR", help="the key of an item, such as item or item['id']")
    group("--order", choices=("completion", "input"), default="completion", help="default: completion")
    group(
        "--output",
        metavar="OUT.jsonl",
        help="instead of stdout; what was in the file is replaced",
        type=file_or_stdout,
    )
    group("--checkpoint", metavar="FILE", help="a journal; the same command again makes only what is missing")
    group("--report", metavar="OUT.html", help="the run as a page")
    group("--trace", metavar="OUT.json", help="the run as a trace for ui.perfetto.dev")
    group("--quiet", action="store_true", help="no bar and no summary on stderr")


def run_function(arguments: argparse.Namespace) -> int:
    """See ``_command/_run``."""
    from parallelkit._command._run import run_command

    return run_command(arguments)


def add_doctor(commands: argparse._SubParsersAction[Intermixed]) -> None:
    """``parallelkit doctor``."""
    doctor = commands.add_parser(
        "doctor",
        help="what there is to work with here, and what is missing",
        description="Say how many processors may be used, how long workers take to start, which packages are here, "
        "and what of this system the package can use. Exit code 1 where processes or threads do not work.",
    )
    doctor.set_defaults(command=examine)


def examine(arguments: argparse.Namespace) -> int:
    """See ``_command/_doctor``."""
    from parallelkit._command._doctor import show_health

    return WELL if show_health() else FAILED


def add_demo(commands: argparse._SubParsersAction[Intermixed]) -> None:
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
        say("the demo needs requests: pip install 'parallelkit[http]'")
        return USAGE
    from parallelkit._demo import run_demo

    return WELL if run_demo() else FAILED
