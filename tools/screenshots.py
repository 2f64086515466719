"""Takes a picture of every page of the dashboard, in both sizes, for a look at each.

python tools/screenshots.py                  # into build/screenshots
python tools/screenshots.py --documents      # the three of the README too, into docs/images

A gateway of its own serves tiny-mixtral twice; what it starts, it ends.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parent.parent
SIZES = {"wide": (1440, 900), "small": (360, 740)}
PAGES = {
    "zoo": "/?q=mixtral",
    "zoo-all": "/",
    "zoo-table": "/?view=table&ability=vision",
    "zoo-nothing": "/?q=no+such+model",
    "model": "/models/mixtral-v0.1?variant=46_7-ggufv2-Q4_K_M",
    "launch": "/launch/mixtral-v0.1?model_format=ggufv2&quantization=Q2_K",
    "launch-refused": "/launch/mixtral-v0.1?model_format=gptq",
    "running": "/running",
    "running-one": "/running/tiny-mixtral",
    "running-log": "/running/tiny-mixtral?tab=log",
    "running-events": "/running/tiny-mixtral?tab=events",
    "running-failed": "/running/broken",
    "playground": "/playground?models=tiny-mixtral,small&mode=completion",
    "playground-tokens": "/playground?models=tiny-mixtral&mode=completion",
    "memory": "/memory?model=mixtral-v0.1&format=ggufv2",
    "memory-contexts": "/memory?model=mixtral-v0.1&format=ggufv2&by=context&quantization=Q4_K_M",
    "downloads": "/downloads",
    "cluster": "/cluster",
    "cluster-install": "/cluster?install=transformers",
    "keys": "/keys",
}
DOCUMENTS = ("zoo", "launch", "playground")
HEIGHT = "Math.min(document.documentElement.scrollHeight, 4000)"
SETTLED_MS = 1200
"""Charts draw themselves after the page."""


def main() -> None:
    """Takes them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", action="store_true", help="those of the README too")
    parser.add_argument("--dark", action="store_true", help="in dark colours")
    parser.add_argument("--language", default="en", help="en or zh")
    given = parser.parse_args()
    folder = ROOT / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    scheme: Any = "dark" if given.dark else "light"
    with gateway() as endpoint, sync_playwright() as playwright:
        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))))
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        for size, (width, height) in SIZES.items():
            context = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme=scheme,
                locale=given.language,
                reduced_motion="reduce",
            )
            page = context.new_page()
            for name, path in PAGES.items():
                page.mouse.move(0, 0)
                page.goto(f"{endpoint}/#{path}")
                show(page, name)
                target = folder / f"{name}-{size}{'-dark' if given.dark else ''}.png"
                if size == "small":  # all of it: as high a window, so that nothing floats within
                    page.set_viewport_size({"width": width, "height": page.evaluate(HEIGHT)})
                    page.wait_for_timeout(SETTLED_MS / 4)
                page.screenshot(path=target)
                page.set_viewport_size({"width": width, "height": height})
                print(target.relative_to(ROOT))
                if given.documents and size == "wide" and name in DOCUMENTS:
                    images = ROOT / "docs" / "images"
                    images.mkdir(exist_ok=True)
                    shutil.copy(target, images / f"{name}.png")
            context.close()
        browser.close()


def show(page: Page, name: str) -> None:
    """Waits until a page is what a person would see, and does what shows it best."""
    page.get_by_role("heading", level=1).wait_for()
    page.locator(".mantine-Skeleton-root").first.wait_for(state="detached")
    if name == "playground-tokens":
        page.locator(".mantine-Accordion-control").click()
        for field, text in (("n", "2"), ("logprobs", "3"), ("max_tokens", "24")):
            page.get_by_label(field, exact=True).fill(text)
    if name.startswith("playground"):
        page.get_by_label(re.compile("^(Prompt|提示词)")).fill("The old elephant")
        page.keyboard.press("Control+Enter")
        page.locator("[data-run=running]").first.wait_for(state="detached")
    if name == "playground-tokens":
        page.get_by_text(re.compile("^(Log probabilities|对数概率)")).first.click()
    page.wait_for_timeout(SETTLED_MS)


@contextmanager
def gateway() -> Iterator[str]:
    """A gateway with two models that answer, and one that failed."""
    with tempfile.TemporaryDirectory(prefix="paddock-screenshots-") as home:
        environ = {**os.environ, "PADDOCK_HOME": home, "PADDOCK_PORT": "0"}

        def paddock(*arguments: str, check: bool = True) -> None:
            command = [sys.executable, "-m", "paddock", *arguments]
            subprocess.run(command, env=environ, check=check, capture_output=True)

        try:
            paddock("launch", "tiny-mixtral", "-f", "ggufv2", "-q", "Q4_K_M")
            paddock("launch", "tiny-mixtral", "-f", "ggufv2", "-q", "Q2_K", "-u", "small")
            weights = ROOT / "specs/weights/tiny-mixtral/ggufv2/tiny-mixtral.Q4_K_M.gguf"
            broken = Path(home) / "broken.gguf"
            broken.write_bytes(weights.read_bytes()[:200_000])
            failing = ("launch", "tiny-mixtral", "-f", "ggufv2", "-q", "Q4_K_M", "-u", "broken")
            paddock(*failing, "--model-path", str(broken), check=False)
            yield json.loads((Path(home) / "gateway.json").read_text())["endpoint"]
        finally:
            paddock("stop")


if __name__ == "__main__":
    main()
