import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import given, settings
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordLevel
from tokenizers.normalizers import Replace
from tokenizers.pre_tokenizers import ByteLevel, Whitespace
from tokenizers.trainers import BpeTrainer

from chunker.splitting.cleaning import clean
from chunker.splitting.heading_tree import HeadingTree
from chunker.splitting.splitter import Splitter
from shared.pipeline.messages import Chunk
from shared.service.errors import ConfigurationError, RejectedError
from shared.tei.tokenizer import load_tokenizer
from tests.unit.chunker.pages import sample_pages
from tests.unit.chunker.strategies import any_text, markdown

TOKENIZER = load_tokenizer(None)
SPLITTER = Splitter(TOKENIZER)
SMALL = Splitter(TOKENIZER, max_tokens=64, overlap_tokens=10, max_characters=200)
BARE = Splitter(TOKENIZER, prefix_tokens=0)
SENTENCE = "The consumer reads an entry, and hands it over to the next stage. "


def tokens_of(chunks: tuple[Chunk, ...], tokenizer: Tokenizer = TOKENIZER) -> list[int]:
    """What TEI sees, counted by the real tokenizer."""
    return [
        len(encoding)
        for encoding in tokenizer.encode_batch([chunk.embedded_text for chunk in chunks])
    ]


def assert_sound(text: str, chunks: tuple[Chunk, ...]) -> None:
    """Chunks are pieces of the text, in order, and together all of it but whitespace."""
    covered = 0
    for chunk in chunks:
        assert chunk.text == text[chunk.start : chunk.end]
        assert chunk.text.strip()
        assert not text[covered : chunk.start].strip()
        covered = chunk.end
    assert not text[covered:].strip()
    for before, after in pairwise(chunks):
        assert before.start < after.start
        assert before.end < after.end


@given(markdown.map(clean), any_text)
def test_every_chunk_fits_and_is_counted_as_the_model_counts(text: str, title: str) -> None:
    chunks = SPLITTER.split(text, title)
    assert tokens_of(chunks) == [chunk.tokens for chunk in chunks]
    assert all(chunk.tokens <= 256 and len(chunk.text) <= 4000 for chunk in chunks)
    assert_sound(text, chunks)


@given(markdown.map(clean), any_text)
def test_without_room_for_a_prefix_the_text_alone_is_embedded(text: str, title: str) -> None:
    for chunk in BARE.split(text, title):
        assert chunk.embedded_text == chunk.text


@given(markdown.map(clean), any_text)
def test_small_bounds_hold_as_well(text: str, title: str) -> None:
    chunks = SMALL.split(text, title)
    assert tokens_of(chunks) == [chunk.tokens for chunk in chunks]
    assert all(chunk.tokens <= 64 and len(chunk.text) <= 200 for chunk in chunks)
    assert_sound(text, chunks)


@given(markdown.map(clean))
def test_headings_are_those_in_force_where_the_chunk_starts(text: str) -> None:
    tree = HeadingTree(text)
    for chunk in SPLITTER.split(text, ""):
        assert chunk.headings == tree.path(chunk.start)


@settings(max_examples=30)
@given(markdown.map(lambda text: clean(text * 5)))
def test_chunks_repeat_at_most_the_overlap_of_the_one_before(text: str) -> None:
    for before, after in pairwise(SPLITTER.split(text, "")):
        repeated = text[after.start : before.end]
        assert len(TOKENIZER.encode(repeated, add_special_tokens=False)) <= 50


def test_real_pages_split_into_sound_chunks_within_the_limit() -> None:
    for page in sample_pages():
        text = clean(page.markdown)
        chunks = SPLITTER.split(text, page.title)
        assert tokens_of(chunks) == [chunk.tokens for chunk in chunks]
        assert all(chunk.tokens <= 256 for chunk in chunks)
        assert_sound(text, chunks)
        assert all(page.title[:20] in chunk.prefix for chunk in chunks)


def test_real_pages_have_hardly_a_chunk_that_is_only_a_heading_or_tiny() -> None:
    chunks = [
        chunk
        for page in sample_pages()
        for chunk in SPLITTER.split(clean(page.markdown), page.title)
    ]
    bare = [chunk for chunk in chunks if chunk.text.startswith("#") and "\n" not in chunk.text]
    tiny = [chunk for chunk in chunks if len(chunk.text) < 40]
    assert len(bare) <= len(chunks) // 200
    assert len(tiny) <= len(chunks) // 20


@pytest.mark.parametrize("text", ["", " ", "\n\t\n", "\0\0", "\u2028"])
def test_blank_text_has_no_chunks(splitter: Splitter, text: str) -> None:
    assert splitter.split(clean(text), "Title") == ()


def test_a_short_page_is_one_chunk_under_its_title(splitter: Splitter) -> None:
    (chunk,) = splitter.split("Some words.", "Guide\0 to\n streams\ud800")
    assert (chunk.text, chunk.start, chunk.end) == ("Some words.", 0, 11)
    assert chunk.prefix == "Guide to streams\ufffd\n\n"
    assert chunk.headings == ()


def test_prose_overlaps_and_the_overlap_begins_with_a_sentence(splitter: Splitter) -> None:
    chunks = splitter.split((SENTENCE * 60).strip(), "")
    assert len(chunks) > 3
    for before, after in pairwise(chunks):
        assert before.end - after.start >= 20
        assert after.text.startswith("The consumer")


@pytest.mark.parametrize("characters", ["漢字仮名", "word ", "[", "x_y.z/"])
def test_every_script_overlaps(splitter: Splitter, characters: str) -> None:
    chunks = splitter.split(clean(characters * 1000), "")
    assert len(chunks) > 2
    assert all(before.end > after.start for before, after in pairwise(chunks))


def test_without_overlap_the_chunks_are_disjoint() -> None:
    chunks = Splitter(TOKENIZER, overlap_tokens=0).split(SENTENCE * 60, "")
    assert all(before.end <= after.start for before, after in pairwise(chunks))


def test_no_overlap_reaches_over_a_heading(splitter: Splitter) -> None:
    text = "\n\n".join(f"## Part {number}\n\n{SENTENCE * 9}" for number in range(5))
    chunks = splitter.split(text, "Page")
    assert len(chunks) >= 5
    assert all(chunk.text.find("## ", 1) == -1 for chunk in chunks)
    assert [chunk.headings for chunk in chunks] == sorted(chunk.headings for chunk in chunks)


def test_a_heading_stays_with_the_text_under_it(splitter: Splitter) -> None:
    text = "\n\n".join(
        f"## Part {number}\n\n{SENTENCE.strip() + ' ' + SENTENCE * 14}" for number in range(5)
    )
    for chunk in splitter.split(clean(text), ""):
        assert len(chunk.text) > len("## Part 1") + 40


def test_own_text_has_at_most_206_tokens(splitter: Splitter) -> None:
    assert [chunk.tokens for chunk in splitter.split("a " * 206, "")] == [208]
    assert len(splitter.split("a " * 207, "")) == 2


def test_marks_that_stand_alone_join_the_text_before(splitter: Splitter) -> None:
    paragraph = (SENTENCE * 9).strip()
    chunks = splitter.split(f"{paragraph}\n\n---\n\n{paragraph}\n\n***\n\n{paragraph}", "")
    assert [chunk.text.split()[-1] for chunk in chunks] == ["---", "***", "stage."]


def test_a_chunk_that_the_next_one_repeats_entirely_is_left_out(splitter: Splitter) -> None:
    text = "A short intro.\n\n" + (SENTENCE * 9).strip()
    assert [chunk.text for chunk in splitter.split(text, "")] == [text]


def test_a_joined_heading_does_not_break_the_bound_of_characters() -> None:
    text = f"# {'t' * 50}\n\n{'a' * 195}"
    chunks = Splitter(TOKENIZER, max_tokens=64, overlap_tokens=0, max_characters=200).split(
        text, ""
    )
    assert all(len(chunk.text) <= 200 for chunk in chunks)
    assert_sound(text, chunks)


def test_an_overlap_that_makes_more_tokens_than_its_parts_is_left_out() -> None:
    tokenizer = Tokenizer(WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.normalizer = Replace("end\n\nstart", "end" + " more" * 20 + " start")
    first, second = Splitter(tokenizer).split("aa " * 200 + "end\n\nstart" + " bb" * 200, "")
    assert (first.text[-3:], second.text[:5], second.tokens) == ("end", "start", 201)


def test_more_chunks_than_allowed_are_refused_early() -> None:
    text = SENTENCE * 60
    count = len(SPLITTER.split(text, ""))
    assert len(Splitter(TOKENIZER, max_chunks=count).split(text, "")) == count
    started = time.process_time()
    for refused in (text, SENTENCE * 100_000):
        with pytest.raises(RejectedError) as refusal:
            Splitter(TOKENIZER, max_chunks=count - 1).split(refused, "")
        assert refusal.value.code == "too_many_chunks"
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("bounds", "variable"),
    [
        ({"max_tokens": 32}, "WEBHOOK_MAX_CHUNK_TOKENS"),
        ({"overlap_tokens": 104}, "WEBHOOK_CHUNK_OVERLAP_TOKENS"),
        ({"overlap_tokens": -1}, "WEBHOOK_CHUNK_OVERLAP_TOKENS"),
        ({"prefix_tokens": -1}, "WEBHOOK_CHUNK_PREFIX_TOKENS"),
        ({"max_characters": 100}, "WEBHOOK_MAX_CHUNK_CHARACTERS"),
    ],
)
def test_bounds_without_room_for_text_are_refused(bounds: dict[str, int], variable: str) -> None:
    with pytest.raises(ConfigurationError, match=variable):
        Splitter(TOKENIZER, **bounds)


def test_threads_share_a_splitter_and_results_do_not_depend_on_what_came_before() -> None:
    pages = [(clean(page.markdown), page.title) for page in sample_pages()[:40]]
    shared = Splitter(TOKENIZER)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda page: shared.split(*page), pages))
    assert together == [Splitter(TOKENIZER).split(*page) for page in pages]


@settings(max_examples=20)
@given(markdown.map(lambda text: clean(text * 3)))
def test_another_kind_of_tokenizer_is_within_the_limit_as_well(text: str) -> None:
    chunks = BYTE_LEVEL.split(text, "A title")
    assert tokens_of(chunks, BYTE_LEVEL_TOKENIZER) == [chunk.tokens for chunk in chunks]
    assert all(chunk.tokens <= 256 for chunk in chunks)
    assert_sound(text, chunks)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 200_000,
        "漢字" * 50_000,
        "word " * 50_000,
        "\n".join("  " * depth + "- an item" for depth in range(500)),
        "> " * 500 + "a",
        "- " * 50_000,
        "a\n" * 1_000_000,
        "# a\n" * 50_000,
        "[" * 100_000,
        "|a" * 50_000,
        "```\n" * 50_000,
    ],
    ids=lambda text: text[:8].encode("unicode_escape").decode(),
)
def test_no_text_takes_quadratic_time(text: str) -> None:
    started = time.process_time()
    chunks = SPLITTER.split(clean(text), "Title")
    assert time.process_time() - started < 5
    assert max(chunk.tokens for chunk in chunks) <= 256


def _byte_level_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    trainer = BpeTrainer(vocab_size=600, show_progress=False, initial_alphabet=ByteLevel.alphabet())
    tokenizer.train_from_iterator([page.markdown for page in sample_pages()[:20]], trainer)
    return tokenizer


BYTE_LEVEL_TOKENIZER = _byte_level_tokenizer()
BYTE_LEVEL = Splitter(BYTE_LEVEL_TOKENIZER)
