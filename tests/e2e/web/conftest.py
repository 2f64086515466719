"""Fixtures of the dashboard: real Chromium before the pages of a real gateway."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.conftest import Paddock

WEB = Path(__file__).parents[3] / "web"
DEADLINE_MS = 30_000
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")

Open = Callable[..., Page]
"""Opens a page: `open_page(paddock, "/running", width=360, scheme="dark", language="zh")`.

With `clock=True` its time can be put forward: `page.clock.fast_forward`.
"""


@pytest.fixture(scope="session")
def built() -> Path:
    """The dashboard's build, which `make test` brings up to date."""
    index = WEB / "dist" / "index.html"
    assert index.exists(), "the dashboard is not built; run: make web"
    return index.parent


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium of the system: no browser is downloaded.

    It goes with the module: while it is there, its event loop is in the way of other tests' own.
    """
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    assert found, "no Chromium on the path; on Debian: apt-get install chromium"
    # As root, in a container, Chromium has no sandbox; nothing but our own pages is opened.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    expect.set_options(timeout=DEADLINE_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Browser, built: Path) -> Iterator[Open]:
    """Opens pages as a person would; what fails in a page's own code fails the test."""
    wrong: list[str] = []
    with ExitStack() as contexts:

        def opened(
            paddock: Paddock,
            path: str = "/",
            *,
            width: int = 1280,
            scheme: Any = "light",
            language: str = "en",
            clock: bool = False,
        ) -> Page:
            context = browser.new_context(
                viewport={"width": width, "height": 800 if width > 600 else 740},
                color_scheme=scheme,
                locale=language,
                reduced_motion="reduce",
                permissions=["clipboard-read", "clipboard-write"],
            )
            contexts.callback(context.close)
            context.set_default_timeout(DEADLINE_MS)
            if clock:
                context.clock.install()
            page = context.new_page()
            page.on("pageerror", lambda error: _note(str(error), wrong))
            page.on("console", lambda message: _hear(message, wrong))
            page.goto(address(paddock, path))
            return page

        yield opened
    assert wrong == []


def address(paddock: Paddock, path: str) -> str:
    """Where a page of the dashboard is."""
    return f"{paddock.record['endpoint']}/#{path}"


def _hear(message: ConsoleMessage, wrong: list[str]) -> None:
    if message.type == "error":
        _note(message.text, wrong)


def _note(text: str, wrong: list[str]) -> None:
    # A request that was refused, or met no gateway, is told to the person and not an error of ours.
    if not any(words in text for words in ("Failed to load resource", "Unable to preload CSS")):
        wrong.append(text)
