"""An entry that hangs, which a healthy pipeline does not have for long."""

import uuid
from typing import Any

from redis import Redis

from shared.pipeline.lanes import Lane
from shared.pipeline.stages import StageName
from tests.support.pipeline import Pipeline
from tests.support.waiting import block_until


class HeldEntry:
    """A job of one document whose entry a dead chunker holds. Freeze the living ones (`frozen`)."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.url = f"https://example.com/{uuid.uuid4()}"
        self.job_id = pipeline.index([{"url": self.url, "markdown": "# Ibex"}])
        self.id = block_until(self._deliver, timeout=20, description="the entry to be pending")[
            "id"
        ]

    @property
    def row(self) -> dict[str, Any] | None:
        """The entry among the pending ones."""
        entries = self._pipeline.http.get("/api/streams/chunker/pending").json()["entries"]
        return next((each for each in entries if self.job_id in each["job_ids"]), None)

    def _deliver(self) -> Any:
        with Redis.from_url(self._pipeline.env["WEBHOOK_REDIS_URL"]) as redis:
            redis.xreadgroup(
                StageName.CHUNKER,
                "chunker:gone:1:000000",
                {StageName.CHUNKER.stream(Lane.NORMAL): ">"},
            )
        return self.row
