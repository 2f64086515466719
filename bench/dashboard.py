"""The dashboard's first paint and what it loads, on loopback.

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
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
SCRIPTS = """performance.getEntriesByType('resource')
  .filter(one => one.initiatorType === 'script' || one.name.endsWith('.js'))
  .reduce((sum, one) => sum + one.encodedBodySize, 0)"""
PAGES = ("/", "/running", "/playground", "/memory")


def main() -> None:
    """Prints one row for each page: medians, in milliseconds and kilobytes."""
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


def _endpoint(home: str) -> str:
    record = json.loads((Path(home) / "gateway.json").read_text())
    return str(record["endpoint"])


if __name__ == "__main__":
    main()
