import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from patience import wait_until

import parallelkit._demo
from parallelkit._demo import run_demo
from parallelkit._demo._claims import Claims
from parallelkit._demo._research import show_research
from parallelkit._demo._sources import SOURCES, SourceServer
from parallelkit._demo._tokens import show_tokens

STDLIB = Path(sysconfig.get_path("stdlib"))
BREAKERS = ["__future__.py", "antigravity.py"]


def test_a_broken_claim_fails_the_demo(monkeypatch, capsys):
    """What does not hold is marked where it is printed, repeated at the end, and fails the demo."""
    monkeypatch.setattr(parallelkit._demo, "show_research", lambda claims: claims.claim("1 is 2", False))
    monkeypatch.setattr(parallelkit._demo, "show_tokens", lambda claims: claims.claim("1 is 1", True))
    assert not run_demo()
    shown = capsys.readouterr()
    assert ["  BROKEN 1 is 2", "  ok     1 is 1"] == shown.out.splitlines()
    assert "this does not hold: 1 is 2\n" == shown.err


def test_sources_misbehave_as_announced():
    """Each of the five sources does what the demo says of it; the hanging one lets go when the server closes."""
    import requests

    def status(source):
        return requests.get(f"{server.url}/{source}", {"product": "tea"}, timeout=5).status_code

    with SourceServer() as server:
        assert [200, 503, 503, 200, 410] == [
            status("amazon_reviews"),
            *(status("price_comparison") for _ in range(3)),
            status("reddit_discussions"),
        ]
        with pytest.raises(requests.ReadTimeout):
            requests.get(f"{server.url}/youtube_reviews", {"product": "tea"}, timeout=0.05)
        wait_until(lambda: server.asked["youtube_reviews"])
    assert {"price_comparison": 3, "youtube_reviews": 1}.items() <= server.asked.items()


@pytest.mark.all
@pytest.mark.abandons(2)  # the hanging source is given up in both runs
def test_every_claim_on_the_sources_holds(capsys):
    """The five sources asked over real HTTP: outcomes, attempts, calls and times are as claimed."""
    claims = Claims()
    show_research(claims)
    shown = capsys.readouterr().out
    assert [] == claims.broken
    assert 6 == shown.count("  ok ")
    assert all(f"'{source}': " in shown for source in SOURCES)


def copy_of_stdlib(folder, names):
    for name in names:
        shutil.copy(STDLIB / name, folder)
    return str(folder)


@pytest.mark.all
def test_a_kill_and_a_hang_cost_two_files(tmp_path, capfd):
    """In the script that runs without a main guard, all files but the two that break are counted right."""
    claims = Claims()
    show_tokens(claims, copy_of_stdlib(tmp_path, [*BREAKERS, "abc.py", "json/decoder.py", "types.py"]))
    assert [] == claims.broken
    assert (
        "5 files: 3 equal the sequential count, 2 failures: WorkerDied, TaskTimeout"
        == capfd.readouterr().out.splitlines()[-1]
    )


def test_missing_failures_break_the_claim(tmp_path, capfd):
    """Where the promised kill and hang do not happen, the script fails and so does the demo."""
    claims = Claims()
    show_tokens(claims, copy_of_stdlib(tmp_path, ["abc.py"]))
    assert ["the script counted every file but two"] == claims.broken
    assert "as the only failures" in capfd.readouterr().err


@pytest.mark.all
def test_whole_demo():
    """`parallelkit demo` ends well, and its last line says that all files but two were counted right."""
    run = subprocess.run(
        [sys.executable, "-m", "parallelkit", "demo"], check=False, capture_output=True, text=True, timeout=55
    )
    assert 0 == run.returncode, run.stderr
    last = run.stdout.splitlines()[-1].replace(",", "")
    files, equal = map(
        int,
        re.fullmatch(
            r"(\d+) files: (\d+) equal the sequential count 2 failures: WorkerDied TaskTimeout", last
        ).groups(),
    )
    assert files - 2 == equal > 500
