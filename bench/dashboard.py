"""The dashboard's first paint, what it loads, and how smoothly a long list scrolls, on loopback.

python bench/dashboard.py --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Route, sync_playwright

PAINT = """() => new Promise(done => new PerformanceObserver(list => {
  for (const one of list.getEntriesByName('first-contentful-paint')) done(one.startTime)
}).observe({type: 'paint', buffered: true}))"""
SCRIPTS = """performance.getEntriesByType('resource')
  .filter(one => one.initiatorType === 'script' || one.name.endsWith('.js'))
  .reduce((sum, one) => sum + one.encodedBodySize, 0)"""
PAGES = ("/", "/running", "/playground", "/memory")
LISTS = {"cards": "/", "table": "/?view=table"}
MODELS = 1000
NOTCH_PIXELS = 120
"""What one notch of a mouse's wheel scrolls by."""
JANK_MS = 50
WATCH = """() => {
  window.drawn = []
  const draw = at => { window.drawn.push(at); requestAnimationFrame(draw) }
  requestAnimationFrame(draw)
}"""
LEFT = "document.documentElement.scrollHeight - innerHeight - scrollY"


def main() -> None:
    """Prints one row for each page and each view of the list, in milliseconds and kilobytes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="paddock-bench-") as home:
        environ = {**os.environ, "PADDOCK_HOME": home, "PADDOCK_PORT": "0"}
        run = [sys.executable, "-m", "paddock"]
        subprocess.run([*run, "launch", "tiny-mixtral"], env=environ, check=True)
        try:
            measure(home, rounds)
        finally:
            subprocess.run([*run, "stop"], env=environ, check=True)


def measure(home: str, rounds: int) -> None:
    """Opens each page in a new profile, so that nothing is cached."""
    endpoint = _endpoint(home)
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))))
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        print(f"medians of {rounds}, each in a new profile")
        print(f"{'page':14}{'first paint':>14}{'content':>12}{'script':>12}")
        for path in PAGES:
            found = [_one(browser, f"{endpoint}/#{path}") for _ in range(rounds)]
            paint, content, script = (
                statistics.median(one[field] for one in found) for field in range(3)
            )
            print(f"{path:14}{paint:11.0f} ms{content:9.0f} ms{script / 1000:9.0f} kB")
        print(f"frames while {MODELS} models are scrolled through")
        print(f"{'view':14}{'frames':>8}{'median':>12}{'99th':>12}{f'over {JANK_MS} ms':>12}")
        for view, path in LISTS.items():
            took = [ms for _ in range(rounds) for ms in _scrolled(browser, f"{endpoint}/#{path}")]
            median, late = statistics.median(took), statistics.quantiles(took, n=100)[98]
            slow = sum(ms > JANK_MS for ms in took) / len(took)
            print(f"{view:14}{len(took):8}{median:9.1f} ms{late:9.1f} ms{slow:12.2%}")
        browser.close()


def _one(browser: Browser, url: str) -> tuple[float, float, float]:
    context = browser.new_context()
    page = context.new_page()
    page.goto(url)
    page.get_by_role("heading", level=1).wait_for()
    content: Any = page.evaluate("performance.now()")
    paint: Any = page.evaluate(PAINT)
    script: Any = page.evaluate(SCRIPTS)
    context.close()
    return float(paint), float(content), float(script)


def _scrolled(browser: Browser, url: str) -> list[float]:
    """Milliseconds between the frames that are drawn while the wheel turns to the list's end."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.route("**/v1/zoo", _many)
    page.goto(url)
    page.get_by_role("link", name="model-0", exact=True).wait_for()
    page.mouse.move(640, 600)
    page.evaluate(WATCH)
    while page.evaluate(LEFT) > 1:
        for _ in range(10):
            page.mouse.wheel(0, NOTCH_PIXELS)
    drawn: Any = page.evaluate("window.drawn")
    page.get_by_role("link", name=f"model-{MODELS - 1}", exact=True).wait_for()
    context.close()
    return [after - before for before, after in pairwise(drawn)]


def _many(route: Route) -> None:
    """The zoo's models again and again, under other names."""
    zoo = route.fetch().json()
    known = zoo["models"]
    zoo["models"] = [
        known[number % len(known)] | {"name": f"model-{number}"} for number in range(MODELS)
    ]
    route.fulfill(json=zoo)


def _endpoint(home: str) -> str:
    record = json.loads((Path(home) / "gateway.json").read_text())
    return str(record["endpoint"])


if __name__ == "__main__":
    main()
