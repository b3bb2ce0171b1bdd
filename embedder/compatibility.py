"""Checks that a TEI server can embed the chunker's chunks and serves the expected model."""

from collections.abc import Sequence

import msgspec

from shared.jobs.targets import Target
from shared.service.errors import ConfigurationError
from shared.tei.client import TeiClient, TeiInfo

# Two tokenizers that agree on case, accents, numbers, punctuation and other scripts agree on what
# matters here.
PROBE = (
    "Tokenizers Differ: naïve café, 3.14159 e-mails/day, snake_case(x) 你好 Привет "
    "antidisestablishmentarianism"
)


class ChunkShape(msgspec.Struct, frozen=True, kw_only=True):
    """What the chunker makes: how long its chunks are, and the ids that its tokenizer has for
    PROBE.
    """

    max_tokens: int
    probe_ids: tuple[int, ...]


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What a server says of itself, the dimension of its vectors, and the ids that it has for
    PROBE.
    """

    info: TeiInfo
    dimension: int
    probe_ids: tuple[int, ...]  # special tokens included


async def handshake(client: TeiClient) -> Served:
    """Ask a server for its limits, its model and the ids of PROBE. Raises DependencyError."""
    info = await client.info()
    dimension = await client.probe()
    return Served(info=info, dimension=dimension, probe_ids=tuple(await client.tokenize(PROBE)))


def check_compatible(served: Served, shape: ChunkShape) -> None:
    """Raise ConfigurationError if chunks may be too long for TEI, or were measured with another
    tokenizer.
    """
    if served.info.max_input_length < shape.max_tokens:
        raise ConfigurationError(
            f"TEI takes {served.info.max_input_length} tokens a text, chunks have up to "
            f"{shape.max_tokens}: "
            "set WEBHOOK_MAX_CHUNK_TOKENS (or that of the collection) to "
            f"{served.info.max_input_length} or less"
        )
    if served.probe_ids != shape.probe_ids:
        raise ConfigurationError(
            f"TEI serves {served.info.model_id}, whose tokenizer is not the one that chunks are "
            "measured with: "
            "set WEBHOOK_TOKENIZER (or that of the collection) to the tokenizer.json of that model"
        )


def check_same(first: Served, other: Served) -> None:
    """Raise ConfigurationError if two servers would make different vectors of one text."""
    shown = [
        (served.info.model_id, served.info.model_sha, served.dimension) for served in (first, other)
    ]
    if shown[0] != shown[1]:
        raise ConfigurationError(
            "servers that are to share the work serve different models: {} (revision {}, {} "
            "dimensions) "
            "and {} (revision {}, {} dimensions)".format(*shown[0], *shown[1])
        )


def check_targets(targets: Sequence[Target], served: Served) -> None:
    """Raise ConfigurationError if a collection holds vectors that are not of the model that is
    served.
    """
    for target in targets:
        if (target.model, target.dimension) != (served.info.model_id, served.dimension):
            remedy = (
                "point WEBHOOK_TEI_URL to that model, or give the new model an address of its own "
                "and reindex to it"
                if target.tei_url is None
                else f"serve that model again at {target.tei_url}"
            )
            raise ConfigurationError(
                f"TEI serves {served.info.model_id} ({served.dimension} dimensions), but "
                f"{target.collection} holds "
                f"vectors of {target.model} ({target.dimension} dimensions): {remedy}"
            )
