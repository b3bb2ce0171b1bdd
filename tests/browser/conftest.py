"""A browser, and pages of it that are watched: what goes wrong in one fails its test."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from tests.support.browser import find_chromium, running_browser
from tests.support.pipeline import Pipeline

TIMEOUT = 40_000  # milliseconds; documents take their time on a busy machine

OpenPage = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    chromium = find_chromium()
    expect.set_options(timeout=TIMEOUT)
    assert chromium is not None, "chromium must be installed where MILLSTREAM_BROWSER is `required`"
    async with running_browser(chromium) as running:
        yield running


class WatchedContext:
    """Records console errors, script errors and requests to other hosts."""

    def __init__(self, context: BrowserContext, origin: str) -> None:
        self.problems: list[str] = []
        self._origin = origin
        context.on("console", self._check_message)
        context.on("weberror", lambda error: self.problems.append(str(error.error)))
        context.on("request", lambda request: self._check_host(request.url))

    def _check_message(self, message: ConsoleMessage) -> None:
        # Browsers note refusals by themselves: a wrong secret, a page that nobody sent.
        path = urlsplit(message.location["url"]).path
        is_refusal = (path == "/session" and "401" in message.text) or (
            path == "/api/documents" and "404" in message.text
        )
        if message.type == "error" and not is_refusal:
            self.problems.append(message.text)

    def _check_host(self, url: str) -> None:
        if not url.startswith((self._origin, "data:", "blob:")):
            self.problems.append(f"a request to {url}")


@pytest_asyncio.fixture(loop_scope="module")
async def open_door(browser: Browser, pipeline: Pipeline) -> AsyncIterator[OpenPage]:
    """Opens the page without a session; options are those of a browser context."""
    origin = pipeline.env["MILLSTREAM_URL"]
    contexts: list[tuple[BrowserContext, WatchedContext]] = []

    async def open_page(**options: Any) -> Page:
        context = await browser.new_context(**options)
        contexts.append((context, WatchedContext(context, origin)))
        page = await context.new_page()
        page.set_default_timeout(TIMEOUT)
        await page.goto(origin)
        return page

    yield open_page
    for context, _ in contexts:
        await context.close()
    assert [problem for _, watched in contexts for problem in watched.problems] == []


@pytest_asyncio.fixture(loop_scope="module")
async def open_page(open_door: OpenPage, pipeline: Pipeline) -> OpenPage:
    """Opens the page and signs in."""

    async def signed_in(**options: Any) -> Page:
        page = await open_door(**options)
        await page.fill("#secret", pipeline.env["WEBHOOK_API_SECRET"])
        await page.click("text=Sign in")
        await page.wait_for_selector(".live[data-state=live]")
        return page

    return signed_in


def pytest_ignore_collect(collection_path: Any) -> bool | None:
    """Without chromium there is nothing to run here; the summary says so."""
    return True if is_left_out() and collection_path.name.startswith("test_") else None


def is_left_out() -> bool:
    return find_chromium() is None and os.environ.get("MILLSTREAM_BROWSER") != "required"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if is_left_out():
        terminalreporter.write_line(
            "Browser tests did not run: there is no chromium here (apt-get install chromium)."
        )
