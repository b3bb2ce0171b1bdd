"""Whether a TEI server can embed the chunker's chunks, and whether it does so as its neighbours do."""

from collections.abc import Sequence

import msgspec

from shared.errors import ConfigurationError
from shared.jobs.targets import Target
from shared.tei import TeiClient, TeiInfo

# Two tokenizers that agree on case, accents, numbers, punctuation and other scripts agree on what matters here.
PROBE = "Tokenizers Differ: naïve café, 3.14159 e-mails/day, snake_case(x) 你好 Привет antidisestablishmentarianism"


class ChunkShape(msgspec.Struct, frozen=True, kw_only=True):
    """What the chunker makes: how long its chunks are, and the ids that its tokenizer has for PROBE."""

    max_tokens: int
    probe_ids: Sequence[int]


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What a server says of itself, and the dimension of its vectors."""

    info: TeiInfo
    dimension: int


async def introduce(client: TeiClient, shape: ChunkShape) -> Served:
    """Ask a server who it is. Raises DependencyError, or ConfigurationError if it does not fit the chunks."""
    info = await client.info()
    served = Served(info=info, dimension=await client.probe())
    check_compatible(info, shape, await client.tokenize(PROBE))
    return served


def check_compatible(info: TeiInfo, shape: ChunkShape, tei_ids: Sequence[int]) -> None:
    """Raise ConfigurationError if chunks may be too long for TEI, or if their tokens were counted by another tokenizer.

    `tei_ids` are the ids of PROBE's tokens, special ones included.
    """
    if info.max_input_length < shape.max_tokens:
        raise ConfigurationError(
            f"TEI takes {info.max_input_length} tokens a text, chunks have up to {shape.max_tokens}: "
            f"set WEBHOOK_MAX_CHUNK_TOKENS to {info.max_input_length} or less"
        )
    if list(tei_ids) != list(shape.probe_ids):
        raise ConfigurationError(
            f"TEI serves {info.model_id}, whose tokenizer is not the one that chunks are measured with: "
            "set WEBHOOK_TOKENIZER to the tokenizer.json of that model"
        )


def check_same(first: Served, other: Served) -> None:
    """Raise ConfigurationError if two servers would make different vectors of one text."""
    shown = [(served.info.model_id, served.info.model_sha, served.dimension) for served in (first, other)]
    if shown[0] != shown[1]:
        raise ConfigurationError(
            "the servers of WEBHOOK_TEI_URL serve different models: {} (revision {}, {} dimensions) "
            "and {} (revision {}, {} dimensions)".format(*shown[0], *shown[1])
        )


def check_targets(targets: Sequence[Target], served: Served) -> None:
    """Raise ConfigurationError if a collection holds vectors that are not of the model that is served."""
    for target in targets:
        if (target.model, target.dimension) != (served.info.model_id, served.dimension):
            raise ConfigurationError(
                f"TEI serves {served.info.model_id} ({served.dimension} dimensions), but {target.collection} holds "
                f"vectors of {target.model} ({target.dimension} dimensions): point WEBHOOK_TEI_URL to that model"
            )
