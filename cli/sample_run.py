"""`millstream up --sample`: posts the bundled crawl to the webhook, waits, and searches it."""

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cli.client import ApiClient
from cli.output import console, errors, tell
from cli.sample import QUERIES, pages
from cli.sample.webhooks import SIGNATURE_HEADER, events, sign
from cli.stall import StallNotice

_POLL_S = 0.25


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The best result of one question."""

    query: str
    top_url: str | None
    score: float | None


class SampleReport(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of the sample crawl."""

    documents: int
    succeeded: int
    failed: int
    chunks: int
    seconds: float  # from the first webhook to the last document
    queries: list[Answer]

    @property
    def is_as_expected(self) -> bool:
        """Every document is searchable, and every question finds the page that answers it."""
        found = [answer.top_url for answer in self.queries]
        return self.succeeded == self.documents and found == [query.url for query in QUERIES]


def run_sample(api: ApiClient, webhook_secret: str) -> SampleReport:
    """Index the sample and ask its questions, with a progress bar on stderr. Raises ApiError."""
    started = time.monotonic()
    jobs = wait_for_crawl(api, post_crawl(api, webhook_secret, pages()))
    seconds = time.monotonic() - started
    results = [r for job in jobs for r in api.get(f"/api/jobs/{job['job_id']}")["results"]]
    answers = [_ask(api, query.text) for query in QUERIES]
    for answer in answers:
        score = f"[dim]{answer.score or 0:.4f}[/dim]"
        console().print(f"[bold]{answer.query}[/bold]\n  {answer.top_url}  {score}")
    return SampleReport(
        documents=len(results),
        succeeded=sum(result["success"] is True for result in results),
        failed=sum(result["success"] is False for result in results),
        chunks=sum(result["chunks"] or 0 for result in results),
        seconds=round(seconds, 2),
        queries=answers,
    )


def post_crawl(api: ApiClient, secret: str, crawled: Sequence[Mapping[str, Any]]) -> str:
    """Send the signed webhooks of one crawl of these pages; returns the crawl's id."""
    crawl_id = ""
    for event in events(crawled, lambda: str(uuid.uuid4())):
        body = msgspec.json.encode(event)
        api.post_raw("/api/webhook/firecrawl", body, {SIGNATURE_HEADER: sign(body, secret)})
        crawl_id = event["id"]
    return crawl_id


def wait_for_crawl(api: ApiClient, crawl_id: str) -> list[dict[str, Any]]:
    """Show a progress bar until all jobs of the crawl have ended; returns the jobs."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    notice = StallNotice(api, tell)
    columns = (
        TextColumn("Indexing the sample crawl"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=errors()) as progress:
        task = progress.add_task("")
        while True:
            jobs: list[dict[str, Any]] = api.get("/api/jobs", crawl_id=crawl_id, limit=1000)["jobs"]
            ended = sum(job["succeeded"] + job["failed"] + job["cancelled"] for job in jobs)
            total = sum(job["total"] for job in jobs)
            progress.update(task, completed=ended, total=total)
            if ended == total:
                return jobs
            notice.watch((ended, total))
            time.sleep(_POLL_S)


def _ask(api: ApiClient, text: str) -> Answer:
    request = {"query": text, "limit": 1, "collapse": "document"}
    results = api.post("/api/search", request)["results"]
    top = results[0] if results else {}
    return Answer(query=text, top_url=top.get("url"), score=top.get("score"))
