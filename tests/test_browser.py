"""The page in a real browser: what it draws, that it asks nobody for anything, and that it stays quick.

Needs Chromium (Debian: ``apt-get install chromium``); without it these tests are skipped.
"""

from __future__ import annotations

import random
import re
import shutil
import time
from collections import Counter
from itertools import product

import pytest
from planted import cut_off, fail, plant, retry

from parallelkit import Results

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright (pip install playwright)")

pytestmark = [
    pytest.mark.all,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)"),
]

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
SIZES = {20: 4, 1000: 16, 100_000: 8}  # tasks: workers
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
HOSTILE = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 1'>"


@pytest.fixture
def browser():
    """A browser for each test: its helper processes come and go, and would look like leaks of others."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def run_of():
    """Ledgers by size, with tasks of every fate; each is made once."""
    made = {}

    def run(tasks):
        if tasks not in made:
            dice = random.Random(tasks)
            durations = [dice.lognormvariate(-4, 0.8) for _ in range(tasks)]
            made[tasks] = plant(durations, SIZES[tasks], keys=[f"item-{number}" for number in range(tasks)])
            for index in range(1, tasks, 10):
                retry(made[tasks], index, ConnectionError(f"port {index} refused"), durations[index] / 4)
            for index in range(2, tasks, 10):
                fail(made[tasks], index, ValueError(f"item {index} is bad"))
            cut_off(made[tasks], [tasks - 1], "run_timeout")
        return made[tasks]

    return run


class Shown:
    """An open page, and everything that it has logged or requested since."""

    def __init__(self, browser, ledger, folder, size=DESK, scheme="light"):
        path = folder / "run.html"
        Results(ledger).save_html(path)
        self.context = browser.new_context(viewport=size, color_scheme=scheme)
        self.page = self.context.new_page()
        self.messages, self.requests = [], []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        began = time.perf_counter()
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-ready]")
        self.took = time.perf_counter() - began
        self.address = path.as_uri()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.context.close()

    def value(self, script):
        return self.page.evaluate(script)

    def count(self, name):
        return int(self.page.locator("#timeline").get_attribute(f"data-{name}"))

    def point_at(self, bar):
        """Move the mouse to the middle of a bar."""
        box = self.page.locator("#timeline canvas").bounding_box()
        x, y = self.value(
            f"[xOf(bars.start[{bar}] + bars.duration[{bar}] / 2), yOf(bars.lane[{bar}]) + view.lane / 2]"
        )
        self.page.mouse.move(box["x"] + x, box["y"] + y)
        self.settle()

    def settle(self):
        """Wait until everything is drawn."""
        self.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def tip(self):
        return self.page.locator("#tip").inner_text().splitlines()


@pytest.mark.parametrize("tasks", SIZES)
def test_the_page_shows_the_whole_run(browser, run_of, tmp_path, tasks):
    """The page has a lane per worker and a bar per attempt, drawn within 3 s, without errors or requests."""
    ledger = run_of(tasks)
    attempts = Results(ledger).summary.attempts
    for scheme, size in product(("light", "dark"), (DESK, PHONE)):
        with Shown(browser, ledger, tmp_path, size, scheme) as shown:
            assert SIZES[tasks] == shown.count("lanes")
            assert attempts == shown.count("bars") == shown.count("drawn")
            assert attempts == int(shown.page.locator("#histogram").get_attribute("data-counted"))
            shown.point_at(0)
            assert "item-" in shown.tip()[0]
            assert shown.took < 3
            assert [] == shown.messages
            assert [shown.address] == shown.requests
            assert size["width"] == shown.value("document.documentElement.scrollWidth")


@pytest.mark.parametrize(("scheme", "bright"), [("light", True), ("dark", False)])
def test_the_page_follows_the_scheme_of_the_reader(browser, run_of, tmp_path, scheme, bright):
    """The page, including its canvas, follows the reader's colour scheme, even if that changes."""
    with Shown(browser, run_of(20), tmp_path, scheme=scheme) as shown:
        for expected in (bright, not bright):
            back, text = (
                sum(map(int, re.findall(r"\d+", shown.value(f"getComputedStyle(document.body).{name}"))))
                for name in ("backgroundColor", "color")
            )
            assert expected == (back > text)
            shown.settle()
            assert shown.value("colours.text") == shown.value(
                "getComputedStyle(document.documentElement).getPropertyValue('--text').trim()"
            )
            shown.page.emulate_media(color_scheme="light" if not bright else "dark")


def test_the_bars_are_painted_in_the_colour_of_their_fate(browser, run_of, tmp_path):
    """In a small run, the middle of each bar has the colour of its fate."""
    with Shown(browser, run_of(20), tmp_path) as shown:
        painted = shown.value("""() => {
            const seen = [], scale = devicePixelRatio;
            for (let bar = 0; bar < total; bar++) {
                const x = xOf(bars.start[bar] + bars.duration[bar] / 2), y = yOf(bars.lane[bar]) + view.lane / 2;
                const [red, green, blue] = pen.getImageData(x * scale, y * scale, 1, 1).data;
                const hex = "#" + [red, green, blue].map((one) => one.toString(16).padStart(2, "0")).join("");
                seen.push([hex === colours[FATES[bars.fate[bar]]], bars.fate[bar]]);
            }
            return seen;
        }""")
    assert {True} == {right for right, _ in painted}
    assert {0: 17, 1: 2, 2: 2, 3: 1} == Counter(fate for _, fate in painted)


def test_a_bar_tells_its_key_its_times_and_its_error(browser, run_of, tmp_path):
    """Under the mouse, a bar shows its key, fate, times, worker and error."""
    ledger = run_of(20)
    with Shown(browser, ledger, tmp_path) as shown:
        for bar, fate, said in ((2, 2, "failed"), (1, 1, "failed, retried")):
            place = shown.value(
                f"bars.fate.findIndex((fate, i) => fate === {fate} && bars.task[i] === {bar})"
            )
            shown.point_at(place)
            key, what, when, worker, error = shown.tip()
            assert (f"item-{bar}", said) == (key, what)
            assert re.fullmatch(r"[\d.]+ ms, from [\d.]+ \S+ to [\d.]+ \S+", when)
            assert ledger.workers[bar] == worker
            assert error in (f"ValueError: item {bar} is bad", f"ConnectionError: port {bar} refused")
        shown.page.mouse.move(5, 5)
        assert shown.page.locator("#tip").is_hidden()


def test_one_can_look_closer_and_back(browser, run_of, tmp_path):
    """One can zoom by dragging, by buttons and by keys; a double click shows the whole run again."""
    with Shown(browser, run_of(1000), tmp_path) as shown:
        span = "view.to - view.from"
        whole = shown.value(span)
        box = shown.page.locator("#timeline canvas").bounding_box()
        middle = box["y"] + box["height"] / 2
        shown.page.mouse.move(box["x"] + box["width"] * 0.4, middle)
        shown.page.mouse.down()
        shown.page.mouse.move(box["x"] + box["width"] * 0.5, middle, steps=3)
        shown.page.mouse.up()
        shown.settle()
        assert shown.value(span) == pytest.approx(whole * 0.1, rel=0.25)
        assert 0 < shown.count("drawn") < shown.count("bars") / 4

        shown.page.mouse.dblclick(box["x"] + box["width"] / 2, middle)
        assert whole == shown.value(span)

        shown.page.locator("[data-zoom=in]").click()
        assert whole / 2 == shown.value(span)
        shown.page.locator("#timeline").press("ArrowLeft")
        shown.page.locator("#timeline").press("ArrowLeft")
        assert 0 == shown.value("view.from")
        shown.page.locator("#timeline").press("0")
        assert whole == shown.value(span)


def test_very_many_workers_can_be_scrolled(browser, tmp_path):
    """Of a thousand lanes a window is drawn, and the last lane can be reached and read."""
    with Shown(browser, plant([0.1] * 5000, workers=1000), tmp_path) as shown:
        assert 1000 == shown.count("lanes")
        assert shown.value("plot.scrollHeight") > 2 * shown.value("plot.clientHeight")
        shown.value("plot.scrollTop = plot.scrollHeight")
        shown.settle()
        last = shown.value("bars.lane.findIndex((lane) => lane === 999)")
        shown.point_at(last)
        assert "worker 999" == shown.tip()[3]
        assert 0 < shown.count("drawn") < 1000


def test_what_comes_from_outside_is_shown_and_never_run(browser, tmp_path):
    """Keys, errors, tracebacks and worker names that try to be scripts are shown and never run."""
    ledger = plant([0.1] * 8, workers=2, keys=[HOSTILE + str(number) for number in range(8)])
    for index in range(4):
        fail(ledger, index, ValueError(HOSTILE), text=HOSTILE)
    ledger.workers[4:] = [HOSTILE] * 4
    cut_off(ledger, [7], HOSTILE)
    with Shown(browser, ledger, tmp_path) as shown:
        for bar in range(8):
            shown.point_at(bar)
            assert shown.tip()[0].startswith("</script><script>window.broken")
        shown.page.locator("summary").first.click()
        assert HOSTILE in shown.page.locator("pre").first.inner_text()
        assert shown.value("window.broken === undefined")
        assert [] == shown.messages
        assert [shown.address] == shown.requests


def test_a_run_of_nothing_can_be_looked_at(browser, tmp_path):
    """The page of an empty run is empty, not broken."""
    with Shown(browser, plant([]), tmp_path) as shown:
        assert (0, 0) == (shown.count("lanes"), shown.count("bars"))
        assert [] == shown.messages
