"""The names of the work streams: one per stage and lane, all in one hash slot so that scripts may span them."""

import enum

from shared.pipeline.lanes import Lane


class StageName(enum.StrEnum):
    """A stage, which is also its consumer group's name."""

    CHUNKER = "chunker"
    EMBEDDER = "embedder"
    INDEXER = "indexer"

    @property
    def next(self) -> "StageName | None":
        """The stage that its documents go on to; None for the last."""
        return _NEXT.get(self)

    def stream(self, lane: Lane) -> str:
        """The stream that this stage reads for a lane, for example `{webhook}:chunk:normal`."""
        return f"{{webhook}}:{_STREAM[self]}:{lane}"

    @property
    def streams(self) -> list[str]:
        return [self.stream(lane) for lane in Lane]


# How the names of consumers begin that are no workers, but people who look after an entry.
OPERATOR = "operator:"

# The number of the last release whose messages are in the streams; the dispatcher's fence.
RELEASED = "{webhook}:released"

_STREAM = {StageName.CHUNKER: "chunk", StageName.EMBEDDER: "embed", StageName.INDEXER: "index"}
_NEXT = {StageName.CHUNKER: StageName.EMBEDDER, StageName.EMBEDDER: StageName.INDEXER}
