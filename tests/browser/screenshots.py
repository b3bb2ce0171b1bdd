"""Takes the pictures of the page for the documentation, of a running pipeline.

`python -m tests.browser.screenshots DIRECTORY`, where DIRECTORY is the `--data-dir` of a
`millstream up` that has been busy for some minutes.
"""

import asyncio
import sys
from pathlib import Path

from playwright.async_api import Browser, ViewportSize

from tests.support.browser import find_chromium, running_browser
from tests.support.pipeline import read_env

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
SIZES = {
    "desktop": ViewportSize(width=1280, height=820),
    "phone": ViewportSize(width=390, height=844),
}


async def take(browser: Browser, env: dict[str, str], size: str, scheme: str) -> None:
    """One picture: jobs on a light desktop, search on a dark one, the pipeline on a phone."""
    context = await browser.new_context(
        viewport=SIZES[size],
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = await context.new_page()
    await page.goto(env["MILLSTREAM_URL"])
    await page.fill("#secret", env["WEBHOOK_API_SECRET"])
    await page.click("text=Sign in")
    await page.wait_for_selector(".live[data-state=live]")
    await page.wait_for_selector("#plot-rates .bar")
    await page.wait_for_selector("#health li")
    if size == "desktop" and scheme == "dark":
        await page.click("#tab-search")
        await page.fill("#search-query", "how do I validate a model")
        await page.keyboard.press("Enter")
        await page.wait_for_selector(".hits li")
    await page.screenshot(path=PICTURES / f"{size}-{scheme}.png", animations="disabled")
    await context.close()


async def main() -> None:
    chromium = find_chromium()
    if chromium is None or len(sys.argv) != 2:
        sys.exit(
            "usage: python -m tests.browser.screenshots DIRECTORY, where chromium is installed"
        )
    env = read_env(Path(sys.argv[1]) / "stack.env")
    PICTURES.mkdir(exist_ok=True)
    async with running_browser(chromium) as browser:
        for size in SIZES:
            for scheme in ("light", "dark"):
                await take(browser, env, size, scheme)


if __name__ == "__main__":
    asyncio.run(main())
