"""The page, the trace and the notebook's card, as far as that needs no browser (see test_browser.py)."""

import json
import re
from array import array
from base64 import b64decode
from html.parser import HTMLParser

import pytest
from planted import BEGAN, cut_off, fail, plant, retry

from parallelkit import Results, TaskTimeout, run_parallel
from parallelkit._ledger import Ledger
from parallelkit._report import _card, _html
from parallelkit._report._lanes import natural, timeline

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&\"'${x}$data"


def page_of(ledger, tmp_path):
    Results(ledger).save_html(tmp_path / "run.html")
    return (tmp_path / "run.html").read_text(encoding="utf-8")


def data_of(page):
    """The data that the scripts of a page read."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])


def column(code, text):
    values = array(code)
    values.frombytes(b64decode(text))
    return list(values)


def trace_of(ledger, tmp_path):
    Results(ledger).save_trace(tmp_path / "run.json")
    return json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["traceEvents"]


def slices(events):
    return [event for event in events if event["ph"] == "X"]


def eventful():
    """A run of ten tasks, of which one was retried, one failed and one was cut off."""
    ledger = plant([1.0] * 10, workers=2, keys=list("abcdefghij"))
    retry(ledger, 3, ConnectionError("again"), 0.25)
    fail(ledger, 4, ValueError("no"))
    cut_off(ledger, [9], "run_timeout of 5 s")
    return ledger


# Lanes


def test_each_worker_has_a_lane_and_each_attempt_a_bar():
    """Workers' lanes are in order of names, attempts' bars in order of starts; times count from the start of the run."""
    run = timeline(plant([1.0, 2.0, 1.0, 1.0], workers=2))
    assert ["worker 0", "worker 1"] == run.lanes
    assert [(0.0, 0), (0.0, 1), (1.0, 0), (2.0, 0)] == [
        (bar.start, lane) for bar, lane in zip(run.bars, run.lane_of, strict=True)
    ]


def test_attempts_at_the_same_time_share_no_lane():
    """A worker with concurrent attempts, such as an event loop, has a lane for each."""
    ledger = plant([1.0] * 6, workers=3)
    ledger.workers[:] = ["loop"] * 6
    run = timeline(ledger)
    assert ["loop", "loop (2)", "loop (3)"] == run.lanes
    for lane in range(3):
        bars = [bar for bar, its in zip(run.bars, run.lane_of, strict=True) if its == lane]
        assert 2 == len(bars)
        assert bars[0].end <= bars[1].start


def test_attempts_that_touch_share_a_lane():
    """Attempts that overlap by a tenth of a microsecond, the resolution of clocks, share a lane."""
    ledger = plant([1.0] * 4, workers=1)
    for index in range(1, 4):
        ledger.started[index] -= 1e-7
    assert ["worker 0"] == timeline(ledger).lanes


def test_lanes_are_sorted_as_people_count():
    """Lanes are in natural order: 9 comes before 10."""
    assert ["w 2", "w 9", "w 10"] == sorted(["w 10", "w 9", "w 2"], key=natural)
    ledger = plant([1.0] * 11, workers=11)
    ledger.workers.reverse()
    assert [f"worker {number}" for number in range(11)] == timeline(ledger).lanes


# The page


def test_the_columns_of_the_page_are_those_of_the_run(tmp_path):
    """The page has every attempt with its times, task, fate and error."""
    data = data_of(page_of(eventful(), tmp_path))
    fates = column("B", data["fate"])
    lost = dict(zip(column("I", data["lost"]), column("I", data["text"]), strict=True))
    assert 11 == len(fates) == len(column("d", data["start"]))
    assert [8, 1, 1, 1] == [fates.count(fate) for fate in range(4)]
    assert 10.0 == pytest.approx(sum(column("f", data["duration"])))
    assert {
        ("d", 1, "ConnectionError: again"),
        ("e", 2, "ValueError: no"),
        ("j", 3, "cut off by the stop of the run"),
    } == {
        (data["keys"][column("I", data["index"])[place]], fates[place], data["texts"][text])
        for place, text in lost.items()
    }


def test_the_tiles_of_the_page_are_the_figures_of_the_run(tmp_path):
    """The page has counts, times and widths as in the report; what went wrong is marked, and nothing is listed that there is not."""
    tile = r'<div class="tile (.*?)"><dt>(.*?)</dt><dd>(.*?)</dd><dd class="note">(.*?)</dd>'
    page = page_of(eventful(), tmp_path)
    assert [
        ("succeeded", "Succeeded", "8", "of 10"),
        ("failed", "Failed", "1", "1 retry"),
        ("cut-off", "Cancelled", "1", "by the stop of the run"),
        ("", "Wall time", "5.00 s", "busy 10.0 s"),
        ("", "Ran at a time", "2.0", "of 2 workers"),
    ] == re.findall(tile, page)[:-1]
    fine = page_of(plant([1.0], timeouts_enforced=False, executor="inline", workers=1), tmp_path)
    assert "<p>inline, 1 worker; timeouts are not enforced there</p>" in fine
    assert ("", "Failed", "0", "no retries") == re.findall(tile, fine)[1]
    assert ("", "Longest task", "1.00 s", "100 % of the wall time") == re.findall(tile, fine)[-1]
    assert "not enforced" not in page
    assert ["further kind" in page, "Cancelled" in fine, "<h2>Failures" in fine] == [False] * 3


def test_what_was_cut_off_does_not_bear_the_error_of_the_attempt_before(tmp_path):
    """An attempt that was cut off is shown as such, though the one before it failed with an error."""
    ledger = plant([1.0])
    cut_off(ledger, [0], "run_timeout of 1 s", OSError("before"))
    assert ["cut off by the stop of the run"] == data_of(page_of(ledger, tmp_path))["texts"]
    (event,) = slices(trace_of(ledger, tmp_path))
    assert ("cut off by the stop of the run", 2) == (event["args"]["error"], event["args"]["attempt"])


def test_positions_need_no_column_of_keys(tmp_path):
    """Positions as keys are not stored in the page."""
    assert data_of(page_of(plant([1.0] * 3), tmp_path))["keys"] is None


def test_the_page_is_small(tmp_path):
    """The page has about 35 bytes per attempt, besides the keys: 4 MB for a hundred thousand."""
    small, large = (len(page_of(plant([0.01] * count), tmp_path)) for count in (1000, 11_000))
    assert (large - small) / 10_000 < 40


def test_very_many_different_errors_do_not_bloat_the_page(tmp_path, monkeypatch):
    """Beyond a number of different errors, the timeline shows only their types."""
    monkeypatch.setattr(_html, "TEXTS", 3)
    ledger = plant([1.0] * 10)
    for index in range(6):
        fail(ledger, index, ValueError(f"item {index % 5}"))
    cut_off(ledger, [6], "run_timeout of 1 s")
    data = data_of(page_of(ledger, tmp_path))
    assert ["ValueError: item 0", "ValueError: item 1", "ValueError: item 2"] == data["texts"][:3]
    assert ["ValueError", "cut off by the stop of the run"] == data["texts"][3:]
    assert [0, 1, 2, 3, 3, 0, 4] == column("I", data["text"])


class Reader(HTMLParser):
    """The elements, attributes and text of a page, as a browser would parse it."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.texts.append(data)


def hostile():
    """A run whose keys, errors, tracebacks, worker names and stop reason all try to become markup."""
    ledger = plant(
        [30.0] + [1.0] * 3, keys=[HOSTILE, HOSTILE + "2", (HOSTILE,), 4]
    )  # so advice names the first
    retry(ledger, 0, ValueError(HOSTILE), 0.5)
    fail(ledger, 1, TaskTimeout(HOSTILE), text=HOSTILE, stack=HOSTILE)
    ledger.workers[2] = HOSTILE
    cut_off(ledger, [3], HOSTILE)
    ledger.facts.executor = HOSTILE
    return ledger


@pytest.mark.parametrize("write", [page_of, lambda ledger, _: Results(ledger)._repr_html_()])
def test_what_comes_from_outside_is_never_markup(write, tmp_path):
    """Text from outside is shown as text, and never becomes markup."""
    harmless = Reader(write(eventful(), tmp_path))
    read = Reader(write(hostile(), tmp_path))
    assert set(read.tags) <= set(harmless.tags) | {"small", "details", "summary", "pre"}
    assert "onerror" not in read.attributes
    assert harmless.tags.count("script") == read.tags.count("script")
    assert any(HOSTILE in text for text in read.texts)


def test_the_page_needs_nothing_from_elsewhere(tmp_path):
    """The page has no external address, except names of formats, and a policy that forbids loading."""
    page = page_of(eventful(), tmp_path)
    assert {"http://www.w3.org/2000/svg"} == set(re.findall(r"\w+://[^\"'\s]+", page))
    assert "default-src 'none'" in page


def test_a_text_that_is_not_unicode_does_not_keep_a_report_from_being_written(tmp_path):
    """Lone surrogates, as in file names, do not prevent reports, pages, traces or cards from being written or printed."""
    ledger = plant([1.0] * 2, keys=["a\udcff", "b"])
    fail(ledger, 0, ValueError("cannot read a\udcff"))
    assert "cannot read a\\udcff" in page_of(ledger, tmp_path)
    assert trace_of(ledger, tmp_path)
    for text in (Results(ledger).report(), Results(ledger)._repr_html_()):
        assert b"cannot read a\\udcff" in text.encode()


def test_control_characters_are_shown_and_not_obeyed(tmp_path):
    """What a message has for a terminal is escaped in reports, cards and pages, whose data stay whole."""
    control = "".join(map(chr, [*range(32), *range(127, 160)]))
    ledger = plant([1.0] * 2, keys=["a", control])
    fail(ledger, 0, ValueError(f"wipe \x1b[2J {control}"), text=control)
    page = page_of(ledger, tmp_path)
    assert {"\x00", "\x1b", "\x7f", "\x9f"} < set(data_of(page)["texts"][0])
    for text in (page, Results(ledger).report(), Results(ledger)._repr_html_()):
        assert r"wipe \x1b[2J" in text
        assert set(text) & set(control) <= set("\t\n\r\x7f")


def test_a_run_of_nothing_has_pictures(tmp_path):
    """An empty run has a page, a trace and a card."""
    assert [] == column("B", data_of(page_of(Ledger(), tmp_path))["fate"])
    assert [] == slices(trace_of(Ledger(), tmp_path))
    assert "0 tasks" in Results(Ledger())._repr_html_()


def test_the_page_tells_why_the_run_stopped_and_what_failed(tmp_path):
    """The page says why the run stopped, and has each kind of failure with a folded traceback."""
    page = page_of(eventful(), tmp_path)
    assert "Stopped: run_timeout of 5 s" in page
    assert "<dt>Cancelled</dt><dd>1</dd>" in page
    assert '<b class="failed">1 failed</b> <span>ValueError: no</span>' in page
    assert '<b class="retried">1 retried</b> <span>ConnectionError: again</span>' in page
    assert page.count("<details>") == 2


def test_of_a_long_traceback_the_end_is_shown(tmp_path):
    """The page and the card show its last frames and the error, not how the task was called."""
    ledger = plant([1.0])
    fail(ledger, 0, ValueError("no"), text=f"Traceback {'x' * 30_000} the end")
    for text in (page_of(ledger, tmp_path), Results(ledger)._repr_html_()):
        assert "the end</pre>" in text
        assert len(text) < 100_000


def test_very_many_kinds_of_failure_are_counted(tmp_path):
    """The page shows fifty kinds of failures, and counts the rest."""
    ledger = plant([0.1] * 80)
    for index in range(70):
        fail(ledger, index, ValueError("x" * (index + 1)))
    page = page_of(ledger, tmp_path)
    assert 50 == page.count("<details>")
    assert "and 20 further kinds" in page


def test_the_page_has_the_advice(tmp_path):
    """The page has the same advice as the text."""
    assert "executor=&quot;processes&quot; would take about 2.1 s" in page_of(
        plant([0.8] * 80, cpu_seconds=8.0), tmp_path
    )
    assert "Advice" not in page_of(plant([0.8] * 80), tmp_path)
    ledger = plant([10.0] + [0.1] * 100, keys=["<b>", *range(100)])
    assert "Task &lt;b&gt; alone took" in page_of(ledger, tmp_path)


# The trace


def test_the_trace_has_a_slice_for_each_attempt(tmp_path):
    """The trace has a slice per attempt, with key, number, queue time and error, in microseconds from the start."""
    events = slices(trace_of(eventful(), tmp_path))
    assert 11 == len(events)
    (second,) = [event for event in events if event["name"] == "d" and event["cat"] == "succeeded"]
    assert (1_250_000, 750_000) == (second["ts"], second["dur"])
    assert {"key": "d", "attempt": 2, "seconds since queued": 1.25} == second["args"]
    (failed,) = [event for event in events if event["cat"] == "failed"]
    assert "ValueError: no" == failed["args"]["error"]
    assert {"retried", "failed", "cut_off", "succeeded"} == {event["cat"] for event in events}


def test_slices_are_where_their_attempts_were(tmp_path):
    """Where a worker had nothing to do, its track has a gap."""
    events = slices(trace_of(plant([0.5] * 3, workers=1, pause=2.0), tmp_path))
    assert [(0, 500_000), (2_000_000, 500_000), (4_000_000, 500_000)] == [
        (event["ts"], event["dur"]) for event in events
    ]


def test_the_tracks_of_the_trace_are_the_workers(tmp_path):
    """The trace has a named track for each worker."""
    events = trace_of(eventful(), tmp_path)
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert {0: "worker 0", 1: "worker 1"} == names
    assert [0, 1] == [event["args"]["sort_index"] for event in events if "sort_index" in event["args"]]
    assert {event["tid"] for event in slices(events)} == set(names)


def test_slices_of_a_track_never_overlap(tmp_path):
    """Slices of a track never overlap, not even by rounding: a viewer would nest them."""
    ledger = plant([1 / 3] * 300, workers=3)
    for index in range(3, 300, 2):
        ledger.started[index] -= 1e-7
    ledger.ended[299] = ledger.started[299] + 1e-8  # before the end of the one before
    ends = {}
    for event in slices(trace_of(ledger, tmp_path)):
        start, end = round(event["ts"] * 1000), round((event["ts"] + event["dur"]) * 1000)
        assert ends.get(event["tid"], 0) <= start <= end
        ends[event["tid"]] = end


# The card


def test_the_card_of_a_notebook_is_small():
    """The notebook's card has counts and the first errors, folded, however many there are."""
    ledger = plant([0.1] * 2000)
    for index in range(1000):
        fail(ledger, index, ValueError("x" * index), text="Traceback " + "x" * 10_000)
    shown = Results(ledger)._repr_html_()
    assert "2,000 tasks: 1,000 succeeded, 1,000 failed" in shown
    assert "further kinds of failure" in shown
    assert shown.count("<details>") < 10
    assert len(shown) < 30_000


def test_the_card_tells_what_went_wrong():
    """Its edge is red if a task failed or the run was stopped, which it says; what there is none of is not listed."""
    fine, stopped, failed = plant([1.0]), plant([1.0]), plant([1.0] * 2)
    stopped.stopped = "run_timeout of 1 s"
    fail(failed, 0, ValueError("no"))
    cards = [Results(ledger)._repr_html_() for ledger in (fine, stopped, failed)]
    assert [False, True, True] == [_card.RED in card for card in cards]
    assert "<br>stopped: run_timeout of 1 s" in cards[1]
    assert ["slowest tasks"] == re.findall("<summary>(.*?)</summary>", cards[0])
    assert "further" not in cards[2]
    assert "<details>" not in Results(Ledger())._repr_html_()


def test_pictures_of_a_real_run(tmp_path):
    """For a real run, the pictures agree with the counts."""
    results = run_parallel(lambda item: 12 // item, [0, 1, 2, 3], key=str, max_workers=2)
    results.save_html(str(tmp_path / "run.html"))
    results.save_trace(str(tmp_path / "run.json"))
    data = data_of((tmp_path / "run.html").read_text(encoding="utf-8"))
    assert ["0", "1", "2", "3"] == data["keys"]
    assert 4 == len(column("B", data["fate"])) == results.summary.attempts
    assert 4 == len(slices(json.loads((tmp_path / "run.json").read_text())["traceEvents"]))
    assert BEGAN > max(column("d", data["start"])) >= 0


def test_a_path_that_cannot_be_written_is_an_error(tmp_path):
    """A path that cannot be written raises the system's error."""
    with pytest.raises(OSError):
        run_parallel(abs, [1]).save_html(tmp_path / "missing" / "run.html")
