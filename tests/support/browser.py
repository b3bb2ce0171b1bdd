"""The browser of the browser tests: an installed chromium. Nothing is downloaded here."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """The path of a chromium; None if there is none."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


@asynccontextmanager
async def running_browser(chromium: str) -> AsyncIterator[Browser]:
    """A headless browser until the block ends."""
    options = (
        ["--no-sandbox"] if os.geteuid() == 0 else []
    )  # chromium does not run as root within its sandbox
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=options)
        yield browser
        await browser.close()
