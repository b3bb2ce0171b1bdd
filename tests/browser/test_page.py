"""The page in a browser, on a running pipeline.

An error on the console or a request to another host fails any test.
"""

import asyncio
import re
import uuid
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.support.failed_documents import failed_document
from tests.support.held import HeldEntry
from tests.support.inspection import query
from tests.support.pipeline import Pipeline, frozen

pytestmark = pytest.mark.asyncio(loop_scope="module")

STAGES = ("ingest", "chunker.*done in", "embedder.*done in", "indexer.*done in")
PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 800}


def documents(
    count: int, text: str = "The kingfisher waits above the weir."
) -> list[dict[str, str]]:
    return [
        {
            "url": f"https://example.com/{uuid.uuid4()}",
            "markdown": f"# Page {n}\n\n{text}\n\n{uuid.uuid4()}",
        }
        for n in range(count)
    ]


async def show(page: Page, tab: str) -> None:
    await page.click(f"#tab-{tab}")
    await expect(page.locator(f"#{tab}")).to_be_visible()


async def violations(page: Page) -> str:
    """What axe-core finds wrong with the page as it stands; empty if nothing."""
    found = await Axe().run(page)
    return str(found.generate_report()) if found.violations_count else ""


async def test_the_page_requires_the_secret_until_it_is_signed_out(open_page: OpenPage) -> None:
    page = await open_page()
    [cookie] = await page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert await page.evaluate("document.cookie") == ""
    await page.click("text=Sign out")
    await expect(page.locator("#secret")).to_be_visible()
    assert await page.context.cookies() == []


async def test_a_wrong_secret_is_reported(open_door: OpenPage) -> None:
    page = await open_door(java_script_enabled=False)  # signing in needs no script
    await page.fill("#secret", "not the secret")
    async with page.expect_response("**/session") as answer:
        await page.click("text=Sign in")
    assert (await answer.value).status == 401
    await expect(page.get_by_role("alert")).to_have_text("That is not the API secret.")


async def test_numbers_are_live_while_documents_flow(
    open_page: OpenPage, pipeline: Pipeline
) -> None:
    page = await open_page()
    with frozen(pipeline.pids("embedder")):
        job_id = await asyncio.to_thread(pipeline.index, documents(60))
        row = page.locator(f".job[data-key='{job_id}']")
        await expect(row.locator(".pill").first).to_have_text("running")
        await expect(page.locator(".stage.embedder .number")).to_have_text(re.compile("^[1-9]"))
        await expect(page.locator(".stage.embedder .facts")).to_contain_text(
            re.compile(r"oldest[0-9.]+ m?s")
        )
    await expect(row.locator(".figures")).to_have_text("60 / 60")
    await expect(row.locator(".pill").first).to_have_text("succeeded")
    await expect(page.locator("#plot-rates .bar.done").first).to_be_visible()
    await expect(page.locator("#plot-rates svg")).to_have_attribute(
        "aria-label", re.compile("documents done")
    )


async def test_a_stage_names_the_server_that_it_waits_for(
    open_page: OpenPage, pipeline: Pipeline
) -> None:
    page = await open_page()
    waits = page.locator(".stage.embedder .waits")
    with frozen(pipeline.pids("tei")):
        job_id = await asyncio.to_thread(pipeline.index, documents(4))
        await expect(waits).to_have_text(
            re.compile(r"waiting for tei since \d\d:\d\d"), timeout=30_000
        )
    await asyncio.to_thread(pipeline.finished, job_id)
    await expect(waits).to_have_text("", timeout=15_000)


async def test_an_opened_job_shows_the_result_of_each_document(
    open_page: OpenPage, pipeline: Pipeline
) -> None:
    page = await open_page()
    good, bad = documents(2)
    job_id = await asyncio.to_thread(pipeline.index, [good, {**bad, "markdown": "\x01"}])
    row = page.locator(f".job[data-key='{job_id}']")
    await row.locator("summary").click()
    results = row.locator("tbody tr")
    await expect(results.nth(0)).to_contain_text("indexed")
    await expect(results.nth(1)).to_contain_text("the markdown has no text")
    await expect(row.get_by_role("button", name="Retry 1 failed document")).to_be_visible()
    await asyncio.to_thread(pipeline.http.delete, "/api/dead-letters", params={"job_id": job_id})


async def test_a_failed_document_is_replayed_by_a_click(
    open_page: OpenPage, pipeline: Pipeline
) -> None:
    failed = await asyncio.to_thread(failed_document, pipeline)
    page = await open_page()
    await show(page, "dead-letters")
    row = page.locator(f".dead-letter[data-key='{failed.letter_id}']")
    await expect(row).to_contain_text(failed.code)
    await row.get_by_role("button", name=f"Replay {failed.url}").click()
    await expect(page.locator("#notice")).to_have_text("1 document queued again")
    await expect(row).to_have_count(0)
    job = await asyncio.to_thread(pipeline.finished, failed.job_id)
    assert (job["status"], job["results"][0]["status"]) == ("succeeded", "indexed")


async def test_pending_entries_are_released_and_given_up_by_a_click(
    open_page: OpenPage, pipeline: Pipeline
) -> None:
    page = await open_page()
    with frozen(pipeline.pids("chunker")):
        released, given_up = [await asyncio.to_thread(HeldEntry, pipeline) for _ in range(2)]
        await show(page, "pending")
        await expect(page.locator(f".entry[data-key$='{released.id}']")).to_contain_text("chunker:")
        await page.get_by_role("button", name=f"Release {released.url}").click()
        await expect(page.locator("#notice")).to_have_text("Available to the next worker")
        await expect(page.locator(f".entry[data-key$='{released.id}']")).to_contain_text(
            "held by an operator"
        )
        await page.get_by_role("button", name=f"Give up {given_up.url}").click()
        await expect(page.locator("#notice")).to_have_text("Given up: 1 dead letter")
        await expect(page.locator(f".entry[data-key$='{given_up.id}']")).to_have_count(0)
    assert (await asyncio.to_thread(pipeline.finished, released.job_id))["status"] == "succeeded"
    assert (await asyncio.to_thread(pipeline.finished, given_up.job_id))["status"] == "failed"
    await asyncio.to_thread(
        pipeline.http.delete, "/api/dead-letters", params={"job_id": given_up.job_id}
    )


async def test_what_has_not_started_is_cancelled_by_a_click(
    open_page: OpenPage, pipeline: Pipeline
) -> None:
    page = await open_page()
    job_id = await asyncio.to_thread(pipeline.index, documents(1))
    await asyncio.to_thread(pipeline.finished, job_id)
    hold = """
        UPDATE webhook.job_items SET state = 'queued', due_at = now() + interval '1 hour'
        WHERE job_id = $1
    """
    reopen = """
        UPDATE webhook.jobs SET status = 'running', succeeded = 0, finished_at = NULL
        WHERE job_id = $1
    """
    for statement in (hold, reopen):
        await asyncio.to_thread(query, pipeline, statement, job_id)
    row = page.locator(f".job[data-key='{job_id}']")
    await row.locator("summary").click()
    await row.get_by_role("button", name="Cancel what has not started").click()
    await expect(page.locator("#notice")).to_contain_text("1 document cancelled")
    await expect(row.locator(".pill").first).to_have_text("cancelled")


async def test_search_marks_the_words_of_the_query(open_page: OpenPage, pipeline: Pipeline) -> None:
    word = f"quokka{uuid.uuid4().hex[:6]}"
    [document] = documents(1, f"A {word} <b>smiles</b> 🙂 at the {word}.")
    await asyncio.to_thread(lambda: pipeline.finished(pipeline.index([document])))
    page = await open_page()
    await show(page, "search")
    await page.fill("#search-query", word)
    await page.select_option("#search-mode", "keyword")
    await page.keyboard.press("Enter")
    hit = page.locator(".hits li").first
    await expect(hit.locator("mark")).to_have_text([word, word])
    await expect(hit).to_contain_text("<b>smiles</b> 🙂")
    await expect(hit.get_by_role("link")).to_have_attribute("href", document["url"])


async def test_where_a_page_is_is_shown_stage_by_stage(
    open_page: OpenPage, pipeline: Pipeline
) -> None:
    [document] = documents(1)
    await asyncio.to_thread(lambda: pipeline.finished(pipeline.index([document])))
    page = await open_page()
    await show(page, "document")
    await page.fill("#document-url", document["url"])
    await page.keyboard.press("Enter")
    found = page.locator(".found")
    await expect(found.locator(".pill")).to_have_text("indexed")
    await expect(found.locator(".journey li")).to_have_text([re.compile(stage) for stage in STAGES])
    await page.fill("#document-url", "https://example.com/never-sent")
    await page.keyboard.press("Enter")
    await expect(page.locator("#document-answer")).to_contain_text("there is no document")


async def test_the_page_works_with_the_keyboard_alone(
    open_page: OpenPage, pipeline: Pipeline
) -> None:
    await asyncio.to_thread(lambda: pipeline.finished(pipeline.index(documents(1))))
    page = await open_page()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to jobs and search")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await expect(page.locator("#tab-jobs")).to_be_focused()
    for tab in ("dead-letters", "pending", "document", "search", "jobs"):
        await page.keyboard.press("ArrowRight")
        await expect(page.locator(f"#tab-{tab}")).to_be_focused()
        await expect(page.locator(f"#{tab}")).to_be_visible()
    await page.locator(".job summary").first.focus()
    await page.keyboard.press("Enter")
    await expect(page.locator(".job tbody tr").first).to_be_visible()
    assert page.url.endswith("#jobs")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_every_view_is_accessible_and_fits(
    open_door: OpenPage,
    open_page: OpenPage,
    pipeline: Pipeline,
    viewport: dict[str, int],
    scheme: str,
) -> None:
    look: dict[str, Any] = {
        "viewport": viewport,
        "color_scheme": scheme,
        "reduced_motion": "reduce",
    }
    assert await violations(await open_door(**look)) == ""
    failed = await asyncio.to_thread(failed_document, pipeline)
    [wide] = documents(1, "A tapir.")
    await asyncio.to_thread(
        lambda: pipeline.finished(pipeline.index([{**wide, "title": "tapir" * 60}]))
    )
    page = await open_page(**look)
    await page.locator(".job summary").first.click()
    await expect(page.locator(".job tbody tr").first).to_be_visible()
    for tab in ("jobs", "dead-letters", "document", "search"):
        await show(page, tab)
        if tab == "dead-letters":
            await expect(page.locator(".dead-letter").first).to_be_visible()
        if tab == "search":
            await page.fill("#search-query", "tapir")
            await page.keyboard.press("Enter")
            await expect(page.locator(".hits li").first).to_be_visible()
        assert await violations(page) == "", tab
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), tab
    with frozen(pipeline.pids("chunker")):
        held = await asyncio.to_thread(HeldEntry, pipeline)
        await show(page, "pending")
        await expect(page.locator(f".entry[data-key$='{held.id}']")).to_be_visible()
        assert await violations(page) == ""
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await asyncio.to_thread(
        pipeline.http.delete, "/api/dead-letters", params={"ids": failed.letter_id}
    )
