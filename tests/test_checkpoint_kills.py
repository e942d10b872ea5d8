"""Parents are killed at random moments: what was recorded never runs again, and hardly anything is lost."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("resumable.py")
AT_RISK = 0.1  # seconds of finished work that a kill may cost
NOISE = 0.15  # seconds more, on a machine where a thread may have to wait that long for a processor
PAUSE = 2.0  # and so many once, where it had to wait for longer
ORPHANS = 1.0  # seconds that workers may outlive their parent


@dataclass
class Story:
    """What happens to one journal, kill after kill."""

    folder: Path
    executor: str
    tasks: int
    kills: int = 0
    recorded: set[str] = field(default_factory=set)
    lost: list[float] = field(default_factory=list)

    def log(self):
        """What was executed: begin or end, key, instant."""
        path = self.folder / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(word, f"'task {key}'", float(at)) for word, key, at in map(str.split, lines)]

    def start(self):
        names = [self.folder / "journal", self.folder / "log", self.executor, str(self.tasks)]
        return subprocess.Popen([sys.executable, SCRIPT, *names])

    def run_until(self, delay, at_work):
        """Run the program and kill it after this time, from its first task or its start; return True if it had ended before."""
        before = len(self.log())
        parent = self.start()
        while at_work and len(self.log()) == before and parent.poll() is None:
            time.sleep(0.005)
        try:
            assert 0 == parent.wait(timeout=delay)
            return True
        except subprocess.TimeoutExpired:
            killed_at = time.monotonic()
            parent.kill()
        parent.wait()
        assert -signal.SIGKILL == parent.returncode
        self.look_back(self.settled_log()[before:], killed_at)
        return False

    def settled_log(self):
        """The log, as soon as no orphan writes into it any more."""
        log = self.log()
        deadline = time.monotonic() + ORPHANS
        while time.monotonic() < deadline:
            time.sleep(0.05)
            if len(later := self.log()) == len(log):
                break
            log = later
        return log

    def look_back(self, log, killed_at):
        """Check, after a kill, that nothing recorded has run again, all of it still is recorded, and little was lost."""
        begun = {key for word, key, _ in log if word == "begin"}
        assert not begun & self.recorded, "recorded before, and run again"
        recorded = self.keys()
        assert self.recorded <= recorded
        self.kills += bool(begun - recorded)  # it landed while tasks were open
        self.recorded = recorded
        ends = [at for word, key, at in log if word == "end" and key not in recorded and at < killed_at]
        self.lost.append(max((killed_at - at for at in ends), default=0.0))

    def keys(self):
        path = self.folder / "journal"
        if not path.exists():
            return set()
        connection = sqlite3.connect(path)
        try:
            return {key for (key,) in connection.execute("SELECT key FROM outcomes WHERE ok")}
        finally:
            connection.close()

    def finish(self):
        """Let the program come to its end, where it compares all values."""
        before = len(self.log())
        assert 0 == self.start().wait()
        begun = {key for word, key, _ in self.log()[before:] if word == "begin"}
        assert not begun & self.recorded
        assert self.tasks == len(self.keys())


def kill_again_and_again(folder, executor, kills, seed):
    """Resume and kill until this many kills have come while tasks were open; then let it finish."""
    chance = random.Random(seed)
    story = Story(folder, executor, tasks=750 * kills)
    while story.kills < kills:
        # On a busy machine it takes seconds to come to its first task: of kills before that, few are enough.
        at_work = chance.random() < 0.8
        assert not story.run_until(chance.uniform(0.0, 0.7), at_work), "too few tasks for the kills"
    story.finish()
    *others, most = sorted(story.lost)
    assert max(others) <= AT_RISK + NOISE
    assert most <= AT_RISK + PAUSE
    return story


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["threads", "processes"])
@pytest.mark.all
def test_a_killed_run_is_resumed(tmp_path, executor):
    """After three kills every task has its value, and nothing recorded before a kill has run again."""
    story = kill_again_and_again(tmp_path, executor, kills=3, seed=os.getpid())
    assert story.recorded


@pytest.mark.all
@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_a_run_that_is_killed_fifteen_times_is_resumed(tmp_path, executor):
    """The same holds after fifteen kills, each of which came while tasks were open."""
    kill_again_and_again(tmp_path, executor, kills=15, seed=os.getpid())
