"""The command line: ``parallelkit COMMAND``.

Exit codes: 0 success, 1 something failed, 2 wrong usage or a missing package, 130 interrupted (death by SIGINT, which
a shell reports so), 141 the reader of the output closed it (as a shell reports SIGPIPE).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from errno import ENOSPC
from importlib.util import find_spec
from io import TextIOWrapper

from parallelkit._command import FAILED, INTERRUPTED, UNREAD, USAGE, WELL, UsageError, own_version, say
from parallelkit._command._arguments import (
    at_least,
    expression,
    failures,
    file,
    file_or_stdout,
    rate,
    seconds,
)
from parallelkit._command._parser import Intermixed

EXAMPLES = """\
examples:
  parallelkit run fetch.py:get urls.txt --output pages.jsonl --timeout 30 --retries 2
      one call for each line, in threads; each outcome is written to pages.jsonl as soon as it is known
  cat urls.txt | parallelkit run fetch.py:get --rate 10/1s --by 'item.split("/")[2]' | jq -c 'select(.ok | not)'
      at most ten starts a second for each host; jq selects the failures
  parallelkit run model:score rows.jsonl --jsonl --key 'item["id"]' --executor processes \\
          --checkpoint score.journal --output scores.jsonl --report scores.html
      one call for each row (a dict), in processes; run again, the command makes only the calls that
      are missing or have failed
  seq 1000000 | parallelkit run builtins:int --quiet | head
      input is read as needed, and the run ends when its output is closed

Each output line has key (by default the item's position in the input, from 0), ok, value or else error and
error_type, attempts (0: recalled from the checkpoint, or the line is not JSON) and seconds. "repr": true marks a
line with a value that JSON cannot hold, which is replaced by its repr(). The expressions of --key and --by are run
as Python code; they can use item and every name in MODULE.
Exit code: 0 all succeeded, 1 some failed, 2 wrong usage, 130 interrupted.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command and return its exit code. If interrupted, end the program by SIGINT.

    A shell ends a loop or a script around a program only if that is what ended the program, and so does ``xargs``.
    """
    code = carry_out(argv)
    if code == INTERRUPTED:  # by then all is cleaned up and said
        sys.excepthook = lambda *error: None
        raise KeyboardInterrupt  # for which Python ends the program by SIGINT
    return code


def carry_out(argv: Sequence[str] | None) -> int:
    """Run one command, or say why not; return its exit code."""
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
        give_up_stdout()
        return UNREAD
    except OSError as error:
        if error.errno != ENOSPC:
            raise
        give_up_stdout()
        say(f"{arguments.usage}: error: the output cannot be written: {error.strerror}")
        return FAILED
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    return code


def give_up_stdout() -> None:
    """Send what is still buffered for stdout to /dev/null, or Python would fail at its exit."""
    if sys.stdout is not None:  # it may be --output that broke
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


def prepare_streams() -> None:
    """Open /dev/null in place of a closed stdin, stdout or stderr, whose number the next opened file would get.

    Have stdout escape characters that its encoding lacks, as stderr does.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number: fd
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser, with one subparser for each command; ``command`` is set to the function that runs it."""
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


def add_run(commands: argparse._SubParsersAction[Intermixed]) -> None:
    """Add ``parallelkit run``."""
    run = commands.add_parser(
        "run",
        help="call a Python function for each line of files or stdin",
        description="Call a Python function once for each line of input, many calls at a time,\n"
        "and write each outcome as a line of JSON as soon as it is known.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="parallelkit run MODULE:FUNCTION [INPUT ...] [options]",
        allow_abbrev=False,
    )
    add = run.add_argument
    add("target", metavar="MODULE:FUNCTION", help="a module by its name or as FILE.py, and a function in it")
    add("inputs", type=file, metavar="INPUT", nargs="*", default=[], help="text files; -, or none: stdin")
    one_of = run.add_mutually_exclusive_group().add_argument
    one_of(
        "--jsonl",
        action="store_true",
        help="parse each line as JSON and pass its value (a dict, say) to the function; skip blank lines",
    )
    one_of("-0", "--null", action="store_true", help="items end in a NUL byte, as those of find -print0")
    run._has_negative_number_optionals.clear()  # for -0 alone is one: the -1 of "--max-workers -1" is a value
    add_engine_options(run.add_argument_group("execution").add_argument)
    add_output_options(run.add_argument_group("output").add_argument)
    run.set_defaults(command=run_function, usage=run.format_usage() + run.prog)


def add_engine_options(group: Callable[..., object]) -> None:
    """Add the options that say how tasks are run."""
    group(
        "--executor",
        choices=("threads", "processes", "inline"),
        default="threads",
        help="what runs the calls; default: threads",
    )
    group(
        "--max-workers",
        type=at_least(1),
        metavar="N",
        help="calls at a time; default: cpus + 4 threads (at most 32), or a process for each cpu",
    )
    group(
        "--timeout",
        type=seconds,
        metavar="TIME",
        help="limit of each attempt, such as 30 (seconds), 500ms, 5m or 1h",
    )
    group("--run-timeout", type=seconds, metavar="TIME", help="limit of the whole run")
    group("--retries", type=at_least(0), default=0, metavar="N", help="extra attempts after a failure")
    group(
        "--max-failures",
        type=failures,
        metavar="N",
        help="stop at N failures, or at a share (0.2, 20%%) of the outcomes so far, once there are 20",
    )
    group(
        "--rate",
        type=rate,
        action="append",
        default=[],
        metavar="N/TIME",
        help="at most N starts in any TIME, such as 10/1s; may be given several times",
    )
    group("--by", type=expression, metavar="EXPR", help="group of an item; --rate is applied to each group")


def add_output_options(group: Callable[..., object]) -> None:
    """Add the options that say what becomes of the outcomes."""
    group(
        "--key",
        type=expression,
        metavar="EXPR",
        help="unique key of an item, such as item or item['id']; default: its position",
    )
    group(
        "--order",
        choices=("completion", "input"),
        default="completion",
        help="order of the output lines; default: completion",
    )
    group(
        "--output",
        metavar="OUT.jsonl",
        help="write to this file, replacing its contents; default: stdout",
        type=file_or_stdout,
    )
    group(
        "--checkpoint",
        type=file,
        metavar="FILE",
        help="record outcomes in this journal; the same command then runs only what is missing or has failed",
    )
    group("--report", type=file, metavar="OUT.html", help="save a report of the run as a web page")
    group("--trace", type=file, metavar="OUT.json", help="save a trace of the run for ui.perfetto.dev")
    group("--quiet", action="store_true", help="no progress bar and no summary on stderr")


def run_function(arguments: argparse.Namespace) -> int:
    """Run ``_command/_run``, imported only now: the other commands need none of it."""
    from parallelkit._command._run import run_command

    return run_command(arguments)


def add_doctor(commands: argparse._SubParsersAction[Intermixed]) -> None:
    """Add ``parallelkit doctor``."""
    doctor = commands.add_parser(
        "doctor",
        help="check what works on this machine, and what is missing",
        description="Show how many processors may be used, how long workers take to start, which packages are "
        "installed, and which features of the system can be used. Exit code 1 if anything needed does not work.",
    )
    doctor.set_defaults(command=examine)


def examine(arguments: argparse.Namespace) -> int:
    """Run ``_command/_doctor``."""
    from parallelkit._command._doctor import show_health

    return WELL if show_health() else FAILED


def add_demo(commands: argparse._SubParsersAction[Intermixed]) -> None:
    """Add ``parallelkit demo``."""
    demo = commands.add_parser(
        "demo",
        help="see it work on real input, in half a minute",
        description="Query five local HTTP sources in threads, and count the tokens of the standard library in "
        "processes, with hangs, crashes and errors among them. Exit code 1 if anything that it claims does not hold.",
    )
    demo.set_defaults(command=demonstrate)


def demonstrate(arguments: argparse.Namespace) -> int:
    """Run ``_demo``."""
    if find_spec("requests") is None:
        say("the demo needs requests: pip install 'parallelkit[http]'")
        return USAGE
    from parallelkit._demo import run_demo

    return WELL if run_demo() else FAILED
