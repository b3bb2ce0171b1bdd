"""The table of stages.

Adding a stage is a package of its name, a member of `StageName` and a row of `STAGES`.
"""

import enum
from collections.abc import Mapping

import msgspec

from shared.pipeline.lanes import Lane
from shared.pipeline.messages import Action, ChunkedDocument, EmbeddedDocument


class StageName(enum.StrEnum):
    """A stage: the name of its package, of its service and of its consumer group.

    In pipeline order.
    """

    CHUNKER = "chunker"
    EMBEDDER = "embedder"
    INDEXER = "indexer"

    @property
    def row(self) -> "StageRow":
        return STAGES[self]

    @property
    def next(self) -> "StageName | None":
        """The stage that its documents go on to; None for the last one."""
        return self.row.next

    def stream(self, lane: Lane) -> str:
        """The stream that this stage reads for a lane, for example `{webhook}:chunk:normal`.

        All streams share one hash slot, so that one script may use several of them.
        """
        return f"{{webhook}}:{self.row.stream}:{lane}"

    @property
    def streams(self) -> list[str]:
        return [self.stream(lane) for lane in Lane]


class StageRow(msgspec.Struct, frozen=True, kw_only=True):
    """What the rest of the system knows about a stage."""

    stream: str  # the word for it in the names of its streams
    next: StageName | None
    receives: Action | None = None  # the documents that the dispatcher sends straight to it
    body: type[msgspec.Struct] | None = None  # a document's part of an entry's body; None: no body
    mark_factor: int = 1  # its streams may hold so many times the bytes of `WEBHOOK_STREAM_BYTES`
    title: str  # on the page
    operation_type: str  # of the rows in operation_metrics that time its work
    operation_title: str  # on the page: what one of these rows is about
    failpoints: Mapping[str, str] = {}  # its own; those of every stage are in failpoints.py


STAGES: Mapping[StageName, StageRow] = {
    StageName.CHUNKER: StageRow(
        stream="chunk",
        next=StageName.EMBEDDER,
        receives=Action.INDEX,
        title="Chunker",
        operation_type="chunking",
        operation_title="chunk a document",
        failpoints={
            "unchanged": "the registry knows that a document is unchanged, and its item is open",
        },
    ),
    StageName.EMBEDDER: StageRow(
        stream="embed",
        next=StageName.INDEXER,
        body=ChunkedDocument,
        title="Embedder",
        operation_type="embedding",
        operation_title="request to TEI",
    ),
    StageName.INDEXER: StageRow(
        stream="index",
        next=None,
        receives=Action.DELETE,
        body=EmbeddedDocument,
        mark_factor=2,  # vectors make its entries about twice as large
        title="Indexer",
        operation_type="qdrant",
        operation_title="write a batch",
        failpoints={
            "entered": "the fence has let versions pass, and none of their points is written",
            "upserted": "the points are written, and not visible",
            "committed": "they are visible, and so are the hidden points of earlier versions",
            "trimmed": "the hidden points are deleted, and the item is open",
            "deleted": "the registry knows that a document is deleted, its points still exist",
        },
    ),
}

# The stage that the dispatcher sends the documents of each action to.
FIRST_STAGE = {row.receives: stage for stage, row in STAGES.items() if row.receives is not None}

# Consumers whose names begin so are operators that hold an entry, not workers.
OPERATOR = "operator:"

# The number of the last release whose messages are in the streams; the dispatcher's fence.
RELEASED = "{webhook}:released"
# The id of the deployment that all these keys belong to.
OWNER = "{webhook}:owner"
