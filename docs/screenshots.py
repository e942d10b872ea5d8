"""Makes the pictures of report.md: runs a made-up price check and takes its page to the browser.

Needs Chromium, and Playwright and Pillow from pip: `python docs/screenshots.py`.
"""

import random
import shutil
import tempfile
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from parallelkit import Results, Retry, run_parallel

STATIC = Path(__file__).parent / "_static"
LIGHT, DARK = {"width": 1100, "height": 1260}, {"width": 390, "height": 1000}


def check_prices() -> Results[str, float]:
    """Two hundred requests of which some are refused, some end badly and one takes very long."""
    dice = random.Random(7)
    plans = [(dice.lognormvariate(-2.2, 0.7), dice.random()) for _ in range(200)]
    plans[60] = (3.5, 1.0)
    refused = set()

    def price_of(url: str) -> float:
        number = int(url.rpartition("/")[2])
        seconds, luck = plans[number]
        if luck < 0.2 and number not in refused:
            refused.add(number)
            time.sleep(seconds / 3)
            raise ConnectionError(f"503 Service Unavailable: {url}")
        time.sleep(seconds)
        if luck > 0.97 and number != 60:
            raise ValueError(f"price of item {number} is not a number: 'n/a'")
        return seconds

    urls = [f"https://shop.example/items/{number}" for number in range(200)]
    retries = Retry(2, on=ConnectionError, delay=0.05)
    return run_parallel(price_of, urls, key=str, max_workers=8, retries=retries)


def main() -> None:
    """One run, seen light on a desk and dark on a phone."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        page_path = Path(folder) / "run.html"
        check_prices().save_html(page_path)
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, size, scheme in (("light", LIGHT, "light"), ("dark", DARK, "dark")):
            page = browser.new_page(viewport=size, color_scheme=scheme, device_scale_factor=1.5)
            page.goto(page_path.as_uri())
            page.wait_for_selector("html[data-ready]")
            box = page.locator("#timeline canvas").bounding_box()
            x, y = page.evaluate(
                "((bar) => [xOf(bars.start[bar] + bars.duration[bar] / 2), yOf(bars.lane[bar]) + 8])(bars.fate.indexOf(2))"
            )
            page.mouse.move(box["x"] + x, box["y"] + y)
            page.wait_for_timeout(200)
            picture = STATIC / f"report-{name}.png"
            page.screenshot(path=picture)
            Image.open(picture).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(
                picture, optimize=True
            )
        browser.close()


if __name__ == "__main__":
    main()
