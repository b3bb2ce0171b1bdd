"""Whether the chunker's chunks fit the model that TEI serves; asked once, at the start. Pure."""

from collections.abc import Sequence

from shared.errors import ConfigurationError
from shared.tei import TeiInfo

# Two tokenizers that agree on case, accents, numbers, punctuation and other scripts agree on what matters here.
PROBE = "Tokenizers Differ: naïve café, 3.14159 e-mails/day, snake_case(x) 你好 Привет antidisestablishmentarianism"


def check_compatible(
    info: TeiInfo, max_chunk_tokens: int, tei_tokens: Sequence[int], own_tokens: Sequence[int]
) -> None:
    """Raise ConfigurationError if chunks may be too long for TEI, or if their tokens were counted by another tokenizer.

    `tei_tokens` and `own_tokens` are the ids of PROBE's tokens, special ones included.
    """
    if info.max_input_length < max_chunk_tokens:
        raise ConfigurationError(
            f"TEI takes {info.max_input_length} tokens a text, chunks have up to {max_chunk_tokens}: "
            f"set WEBHOOK_MAX_CHUNK_TOKENS to {info.max_input_length} or less"
        )
    if list(tei_tokens) != list(own_tokens):
        raise ConfigurationError(
            f"TEI serves {info.model_id}, whose tokenizer is not the one that chunks are measured with: "
            "set WEBHOOK_TOKENIZER to the tokenizer.json of that model"
        )
