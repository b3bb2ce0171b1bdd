"""Texts to token ids within the model's window, with TEI's checks. Pure, but CPU-heavy: for a
thread.
"""

from collections.abc import Sequence

from tokenizers import Tokenizer

from local.tei.contract import ErrorType, Limits, Side, TeiError, Token, empty_input, invalid


def encode(
    tokenizer: Tokenizer, texts: Sequence[str], limits: Limits, truncation: Side | None
) -> list[list[int]]:
    """Token ids of each text, special tokens included, in input order.

    `truncation` says which side of a text that is too long is lost; None makes it an error. Raises
    TeiError (Empty, Validation, Tokenizer) for the first text that cannot be embedded.
    """
    bounded = [_bounded(text, limits.max_input_characters, truncation) for text in texts]
    try:
        encodings = tokenizer.encode_batch_fast(bounded)
    except Exception as error:  # the Rust side raises bare Exception
        raise TeiError(ErrorType.TOKENIZER, f"tokenizer error {error}") from error
    return [_cut(encoding.ids, limits.max_input_length, truncation) for encoding in encodings]


def describe(
    tokenizer: Tokenizer, texts: Sequence[str], limits: Limits, *, special: bool
) -> list[list[Token]]:
    """The tokens of each text with their offsets, never truncated; raises TeiError as `encode`
    does.
    """
    bounded = [_bounded(text, limits.max_input_characters, None) for text in texts]
    return [_tokens(tokenizer, text, special=special) for text in bounded]


def _bounded(text: str, limit: int, truncation: Side | None) -> str:
    if not text:
        raise empty_input()
    if len(text) > limit and truncation is None:
        raise invalid(f"`inputs` must have less than {limit} characters. Given: {len(text)}")
    return text[:limit]


def _cut(ids: list[int], limit: int, truncation: Side | None) -> list[int]:
    """At most `limit` ids; the special tokens at both ends stay."""
    if len(ids) <= limit:
        return ids
    if truncation is None:
        raise invalid(f"`inputs` must have less than {limit} tokens. Given: {len(ids)}")
    if truncation == "Right":
        return ids[: limit - 1] + ids[-1:]
    return ids[:1] + ids[1 - limit :]


def _tokens(tokenizer: Tokenizer, text: str, *, special: bool) -> list[Token]:
    encoding = tokenizer.encode(text, add_special_tokens=special)
    columns = zip(
        encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True
    )
    return [
        Token(id_, name, special=True, start=None, stop=None)
        if mask
        else Token(id_, text[start:stop], special=False, start=start, stop=stop)
        for id_, name, mask, (start, stop) in columns
    ]
