import io
import os
import subprocess
import sys

import pytest

import parallelkit._demo
from parallelkit import _cli
from parallelkit._cli import main


@pytest.mark.parametrize("argv", [[], ["dmeo"], ["demo", "--fast"], ["doctor", "me"]])
def test_wrong_usage_is_code_2(argv, capsys):
    """No command, an unknown one or an unknown option: exit code 2, and the reason on stderr."""
    assert 2 == main(argv)
    assert "usage: parallelkit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("--workers=3", "; did you mean '--max-workers'?"),
        ("-P4", "; did you mean '--max-workers'?"),  # as xargs has it
        ("--n-jobs", "; did you mean '--max-workers'?"),
        ("--threads", "; did you mean '--max-workers'?"),
        ("--resume", "; did you mean '--checkpoint'?"),
        ("--retry", "; did you mean '--retries'?"),
        ("--delay", ""),  # beside the dashes, it has little in common with --key
    ],
)
def test_an_unknown_option_is_named_with_the_nearest_known(option, hint, capsys):
    """The error names the unknown option, not the inputs after it, and suggests what it was meant to be, if that is clear."""
    assert 2 == main(["run", "builtins:int", option, os.devnull])
    assert capsys.readouterr().err.endswith(f"arguments: {option}{hint}\n")


def test_help_names_every_command(capsys):
    """Whoever asks for help gets the commands, and exit code 0."""
    assert 0 == main(["--help"])
    assert "demo" in capsys.readouterr().out


def test_module_is_the_command():
    """``python -m parallelkit`` is the same command line."""
    run = subprocess.run(
        [sys.executable, "-m", "parallelkit", "demo", "--help"], check=False, capture_output=True, text=True
    )
    assert (0, "") == (run.returncode, run.stderr)
    assert "usage: parallelkit demo" in run.stdout


@pytest.mark.parametrize(("holds", "code"), [(True, 0), (False, 1)])
def test_demo_exits_by_its_claims(monkeypatch, holds, code):
    """The demo fails when something that it printed does not hold."""
    monkeypatch.setattr(parallelkit._demo, "run_demo", lambda: holds)
    assert code == main(["demo"])


def test_missing_package_is_named(monkeypatch, capsys):
    """Without requests the demo does not begin; it says what to install."""
    monkeypatch.setattr(_cli, "find_spec", lambda name: None)
    assert 2 == main(["demo"])
    assert "pip install 'parallelkit[http]'" in capsys.readouterr().err


def test_interrupt_ends_it_as_an_interrupt(monkeypatch, capsys):
    """Ctrl-C ends a command by the KeyboardInterrupt for which Python ends a program by SIGINT, without a traceback."""

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(parallelkit._demo, "run_demo", interrupted)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(KeyboardInterrupt) as caught:
        main(["demo"])
    sys.excepthook(caught.type, caught.value, caught.tb)
    assert "interrupted\n" == capsys.readouterr().err


def test_what_stdout_cannot_spell_is_escaped(monkeypatch):
    """Where it takes ASCII alone, a microsecond is no reason to fail."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    monkeypatch.setattr(parallelkit._demo, "run_demo", lambda: sys.stdout.write("5 µs") > 0)
    assert 0 == main(["demo"])
    assert rb"5 \xb5s" == sys.stdout.buffer.getvalue().rstrip()


def test_a_broken_output_file_is_the_same_without_stdout(monkeypatch, capsys):
    """If stdout is closed, and the output is a named pipe whose reader goes away, the command ends silently, too."""

    def unread():
        raise BrokenPipeError

    monkeypatch.setattr(parallelkit._demo, "run_demo", unread)
    monkeypatch.setattr(sys, "stdout", None)
    assert 141 == main(["demo"])
    assert "" == capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_ends_it_with_a_message(monkeypatch, capsys):
    """If what a command prints finds no room, it says so, without a traceback."""
    with open(os.open("/dev/full", os.O_WRONLY), "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(parallelkit._demo, "run_demo", lambda: sys.stdout.write("all is well") > 0)
        assert 1 == main(["demo"])
    assert (
        "parallelkit: error: the output cannot be written: No space left on device\n"
        == capsys.readouterr().err
    )


def test_closed_pipe_ends_it_without_a_word():
    """Where the reader goes away, as ``head`` does, the command ends as one that SIGPIPE ended: silently."""
    talkative = """
import sys, parallelkit._demo as demo, parallelkit._cli as cli

def run_demo():
    print("all is well", flush=True)
    sys.stdin.read()
    print("as was said")  # is in the buffer until the command ends

demo.run_demo = run_demo
sys.exit(cli.main(["demo"]))
"""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [sys.executable, "-c", talkative],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=buffered,
    ) as command:  # fmt: skip
        assert "all is well\n" == command.stdout.readline()
        command.stdout.close()
        command.stdin.close()
        assert "" == command.stderr.read()
    assert 141 == command.returncode
