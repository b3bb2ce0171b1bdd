"""What a row of XPENDING and an entry's header become, and how long a stage will take."""

from typing import Any

import msgspec
import pytest

from ingest.inspection.streams import eta, pending_entry
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import DocumentRef, Header, encode_header

ROW: dict[str, Any] = {
    "message_id": b"1700000000000-3",
    "consumer": b"chunker:host:1:ab",
    "time_since_delivered": 1500,
    "times_delivered": 2,
}


def header(*jobs: str, **changes: Any) -> bytes:
    documents = tuple(
        DocumentRef(
            job_id=job,
            position=n,
            release=1,
            document_id="d",
            version=1,
            url=f"https://example.com/{n}",
        )
        for n, job in enumerate(jobs)
    )
    return encode_header(
        msgspec.structs.replace(Header(target="t", lane=Lane.LOW, documents=documents), **changes)
    )


def test_a_pending_entry_names_its_jobs_and_urls_in_the_order_of_its_documents() -> None:
    entry = pending_entry(Lane.LOW, ROW, header("b", "a", "b", deliveries=3))
    assert (entry.id, entry.consumer, entry.idle_ms) == (
        "1700000000000-3",
        "chunker:host:1:ab",
        1500,
    )
    assert (entry.job_id, entry.job_ids) == ("b", ["b", "a"])
    assert entry.urls == [f"https://example.com/{n}" for n in range(3)]
    assert entry.deliveries == 5


@pytest.mark.parametrize("data", [None, b"", b"{", b"\xff", header("a", schema=99)])
def test_an_entry_with_a_missing_unreadable_or_newer_header_is_still_shown(
    data: bytes | None,
) -> None:
    entry = pending_entry(Lane.HIGH, ROW, data)
    assert (entry.job_id, entry.job_ids, entry.urls, entry.deliveries) == (None, [], [], 2)


@pytest.mark.parametrize(
    ("depth", "rate", "seconds"),
    [(0, None, 0.0), (0, 0.0, 0.0), (9, None, None), (9, 0.0, None), (9, 2.0, 4.5)],
)
def test_the_remaining_time_is_unknown_at_rate_zero(
    depth: int, rate: float | None, seconds: float | None
) -> None:
    assert eta(depth, rate) == seconds
