import io
import logging
import signal
import subprocess
import sys
import threading
import types

import pytest
import remote_tasks as far
import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from parallelkit import Retry, RunInterrupted, Task, iter_parallel, run_parallel
from parallelkit._progress import Bar, Silent, open_bar


class Screen(io.StringIO):
    """A stream that tqdm takes for a terminal."""

    def isatty(self):
        return True

    @property
    def last(self):
        """The final text of the bar's line."""
        return self.getvalue().rstrip().rpartition("\r")[2]


def draw(*counts, **options):
    """The last line of a bar that was given these counts, one after the other."""
    screen = Screen()
    bar = Bar({"file": screen, "ncols": 100, **options})
    for total, settled, failed, retried in counts:
        bar.show(total, settled, failed, retried)
    bar.close()
    return screen.last


# What it shows


def test_the_bar_counts_tasks():
    """The bar shows how many tasks are settled, and of how many."""
    line = draw((8, 0, 0, 0), (8, 3, 0, 0), (8, 8, 0, 0))
    assert "100%" in line
    assert "8/8" in line
    assert "task/s" in line
    assert "failed" not in line
    assert "retried" not in line


def test_failed_and_retried_are_shown():
    """A finished bar shows the numbers of failures and retries."""
    assert "3/8" in draw((8, 3, 1, 2))
    assert "1 failed, 2 retried" in draw((8, 3, 1, 2))
    assert "2 retried" in draw((8, 3, 0, 2))
    assert "failed" not in draw((8, 3, 0, 2))


def test_a_total_may_be_unknown_at_first():
    """With input of unknown length, the bar counts, and is complete when the input has ended."""
    assert "5task" in draw((None, 2, 0, 0), (None, 5, 0, 0))
    assert "5/5" in draw((None, 2, 0, 0), (5, 5, 0, 0))


def test_a_total_that_the_caller_knows_stands_where_the_run_knows_none():
    """The caller's ``total`` is used if the run knows none, and at the end corrected to the real number."""
    assert "3/8" in draw((None, 3, 0, 0), total=8)
    assert "7/7" in draw((None, 3, 0, 0), (7, 7, 0, 0), total=8)


def test_what_was_done_before_counts():
    """With tqdm's ``initial``, the bar starts there, and its total is that much larger than the number of tasks."""
    line = draw((10, 0, 0, 0), (10, 4, 0, 0), initial=90, total=100)
    assert "94/100" in line
    assert "-" not in line
    assert "94/100" in draw((None, 4, 0, 0), initial=90, total=100)


def test_a_total_may_grow():
    """Tasks of ``then`` increase the total."""
    line = draw((2, 1, 0, 0), (6, 2, 0, 0))
    assert "2/6" in line
    assert "33%" in line


def test_the_options_are_tqdms_own():
    """Options of tqdm are passed on, and override ours."""
    line = draw((2, 2, 0, 0), desc="pages", unit="page")
    assert line.startswith("pages: 100%")
    assert "page/s" in line


def test_nothing_is_drawn_twice():
    """Unchanged counts are not drawn again."""
    drawn = []

    class Fake:
        def __init__(self, **options):
            self.total, self.n, self.failure = options["total"], 0, None

        def refresh(self):
            drawn.append("refresh")

        def update(self, more):
            self.n += more
            drawn.append(more)

        def set_postfix_str(self, text, refresh):
            drawn.append(text)

        def close(self):
            drawn.append("close")

    bar = Bar({})
    bar._make = lambda total: Fake(total=total)
    for counts in [(4, 1, 0, 0), (4, 1, 0, 0), (4, 3, 1, 0), (4, 3, 1, 0), (5, 3, 1, 0)]:
        bar.show(*counts)
    bar.close()
    assert [1, "1 failed", 2, "refresh", "1 failed", 0, "refresh", "close"] == drawn


# When it shows it


def test_it_is_silent_where_nobody_looks():
    """There is no bar on a file or a pipe, unless the caller asks for it."""
    for options, shown in [({}, False), ({"disable": False}, True), ({"disable": True}, False)]:
        pipe = io.StringIO()
        run_parallel(abs, range(3), progress={"file": pipe, **options})
        assert shown == ("3/3" in pipe.getvalue())


def test_standard_error_is_where_it_goes(capsys):
    """``progress=True`` uses stderr, and shows nothing if that is no terminal, as under a test."""
    run_parallel(abs, range(3), progress=True)
    assert ("", "") == tuple(capsys.readouterr())


@pytest.mark.parametrize(
    ("progress", "kind"), [(False, Silent), (True, Bar), ({}, Bar), ({"desc": "all"}, Bar)]
)
def test_a_bar_is_there_where_it_was_asked_for(progress, kind):
    """A dict, even an empty one, asks for a bar; without it, the loop has one that does nothing."""
    bar = open_bar(progress)
    assert kind is type(bar)
    bar.close()


def test_tqdm_is_loaded_by_nobody_who_wants_no_bar():
    """A run without a bar does not import tqdm."""
    code = "import sys; from parallelkit import run_parallel; run_parallel(abs, [1]); print('tqdm' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "False" == shown.strip()


def test_a_bar_leaves_no_thread():
    """A bar starts no monitoring thread of tqdm's."""
    before = threading.active_count()
    draw((8, 3, 0, 0))
    assert before == threading.active_count()


def test_the_callers_own_bars_keep_their_watch():
    """The monitoring thread of tqdm stays enabled for the caller's own bars."""
    import tqdm

    before = tqdm.tqdm.monitor_interval
    draw((8, 3, 0, 0))
    assert (before, True) == (tqdm.tqdm.monitor_interval, before > 0)


def test_a_notebook_without_widgets_gets_the_text_bar(monkeypatch):
    """A notebook without widgets gets the text bar, without a warning."""
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    pipe = io.StringIO()
    bar = Bar({"file": pipe})
    bar.show(3, 3, 0, 0)
    bar.close()
    assert "3/3" in pipe.getvalue()


@pytest.mark.parametrize("file", ["none", "stderr", "another"])
def test_a_notebook_with_widgets_gets_tqdms_choice(monkeypatch, file):
    """A notebook with widgets gets what ``tqdm.auto`` chooses; another file than stderr gets the text bar."""
    chosen = []

    class Widget(tqdm.tqdm):
        def __init__(self, *args, **options):
            chosen.append(True)
            super().__init__(*args, **options)

    screen, log = Screen(), io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("tqdm.auto.tqdm", Widget)
    bar = Bar({"none": {}, "stderr": {"file": screen}, "another": {"file": log, "disable": False}}[file])
    bar.show(3, 3, 0, 0)
    bar.close()
    assert [True] * (file != "another") == chosen
    assert "3/3" in (log.getvalue() if file == "another" else screen.last)


# In runs


def run_on_screen(*arguments, **options):
    screen = Screen()
    results = run_parallel(*arguments, progress={"file": screen, "ncols": 100}, **options)
    return results, screen.last


@pytest.mark.parametrize("executor", ["threads", "processes", "inline"])
def test_a_run_ends_with_the_bar_at_its_end(executor):
    """At the end of a run, the bar has counted every settled task, failed ones included."""
    _, line = run_on_screen(far.invert, [1, 0, 2, 3, 0], executor=executor)
    assert "5/5" in line
    assert "2 failed" in line


@pytest.mark.parametrize("executor", ["threads", "inline"])
def test_a_stream_has_a_bar_as_well(executor):
    """A stream has a bar, too."""
    screen = Screen()
    list(iter_parallel(abs, iter(range(7)), executor=executor, progress={"file": screen, "ncols": 100}))
    assert "7/7" in screen.last


def test_retries_are_counted_as_they_happen():
    """Retries are counted as they happen, and are not counted as tasks."""
    tries = []

    def flaky(item):
        tries.append(item)
        if tries.count(item) == 1:
            raise OSError(item)

    _, line = run_on_screen(flaky, range(4), retries=Retry(1, delay=0))
    assert "4/4" in line
    assert "4 retried" in line
    assert "failed" not in line


def test_a_stopped_run_leaves_the_bar_where_it_stopped():
    """Cancelled tasks are not counted as done."""
    results, line = run_on_screen(far.invert, [1, 0, 2, 3], executor="inline", max_failures=1)
    assert results.stopped
    assert "2/4" in line
    assert "1 failed" in line


def test_what_a_checkpoint_knows_is_counted(in_memory):
    """The bar of a run that has nothing left to do is at its end."""
    for _ in range(2):
        _, line = run_on_screen(
            far.invert, {"a": 1, "b": 2}, executor="inline", checkpoint=in_memory / "journal"
        )
        assert "2/2" in line


def test_new_tasks_make_the_bar_longer():
    """The tasks of ``then`` are part of the total."""

    def then(outcome):
        return [Task(abs, outcome.key * 10 + 1)] if outcome.key < 3 and outcome.parent is None else ()

    _, line = run_on_screen(abs, range(3), then=then)
    assert "6/6" in line


def test_log_records_of_processes_stand_in_lines_of_their_own(monkeypatch):
    """Inside tqdm's ``logging_redirect_tqdm``, no record of a task stands in the bar's line, as the guide says."""
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    logger = logging.getLogger(far.__name__)
    monkeypatch.setattr(logger, "handlers", [logging.StreamHandler()])
    monkeypatch.setattr(logger, "propagate", False)
    with logging_redirect_tqdm([logger]):
        run_parallel(far.log_item, range(2), executor="processes", progress={"ncols": 60})
    lines = screen.getvalue().replace("\r", "\n").splitlines()
    assert {"item 0", "item 1"} < set(lines)


# When it fails


class NoScreen:
    """A file that cannot be written to."""

    encoding = "utf-8"

    def write(self, text):
        raise OSError("no screen")

    def flush(self):
        raise OSError("no screen")


BROKEN = {"file": NoScreen(), "disable": False}


def test_bar_that_fails_is_logged_once_and_the_run_goes_on(caplog):
    """A bar that fails is logged once, and the run goes on."""
    assert [0, 1, 2] == run_parallel(abs, range(3), progress=BROKEN).values()
    assert ["the progress bar failed and is switched off; the run goes on"] == caplog.messages


def test_bar_that_fails_blocks_no_other_bar(caplog):
    """A bar that fails releases tqdm's lock, which all bars share."""
    list(iter_parallel(abs, range(3), progress=BROKEN))  # drawn in a thread that ends
    run_parallel(abs, range(3), progress=BROKEN)
    later = threading.Thread(
        target=run_parallel, args=(abs, range(3)), kwargs={"progress": BROKEN}, daemon=True
    )
    later.start()
    later.join(10)
    assert not later.is_alive()
    assert 3 == len(caplog.messages)


class Pressed(Screen):
    """A stream on whose first write Ctrl-C comes."""

    def write(self, text):
        if not self.getvalue():
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


def test_ctrl_c_as_a_bar_is_drawn_blocks_no_other_bar():
    """Ctrl-C while a bar is drawn takes effect afterwards, so that tqdm's lock is released."""
    with pytest.raises(RunInterrupted):
        list(iter_parallel(abs, range(3), executor="inline", progress={"file": Pressed(), "disable": False}))
    lock, free = tqdm.tqdm.get_lock(), []
    other = threading.Thread(
        target=lambda: (free.append(lock.th_lock.acquire(timeout=1)), lock.th_lock.release())
    )
    other.start()
    other.join()
    assert [True] == free


def test_bad_value_of_an_option_costs_the_bar_only(caplog):
    """A value that tqdm cannot use costs only the bar; the run goes on."""
    assert [0, 1, 2] == run_parallel(abs, range(3), progress={"disable": False, "total": "many"}).values()
    assert 1 == len(caplog.messages)


@pytest.mark.parametrize("executor", ["threads", "inline"])
def test_the_bar_of_a_stream_is_closed_with_it(executor, monkeypatch):
    """The bar of a stream is closed however the stream ends, so that its last state is shown."""
    closed = []

    def close(bar):
        closed.append(bar)

    monkeypatch.setattr(Bar, "close", close)
    list(iter_parallel(abs, range(3), executor=executor, progress=True))
    assert 1 == len(closed)
    stream = iter_parallel(abs, range(3), executor=executor, progress=True)
    next(stream)
    stream.close()
    assert 2 == len(closed)
