"""Every setting, as blocks that a service composes; read from the environment once, in `main()`.

A service's settings are a frozen Struct whose fields are such blocks:

    class Settings(msgspec.Struct, frozen=True):
        redis: RedisSettings
        tei: TeiSettings

    settings = load(Settings, os.environ)

A field's variable is `WEBHOOK_` and its name in capitals, unless it is renamed. docs/settings.md
lists all.
"""

import difflib
import enum
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec

from shared.service.errors import ConfigurationError

PREFIX = "WEBHOOK_"
MIN_SECRET_CHARACTERS = 32

# Names of the service that millstream replaces that have no effect here: each is warned about once.
RETIRED = frozenset(
    {
        "WEBHOOK_WORKER_CONCURRENCY",
        "WEBHOOK_QUEUE_NAME",
        "WEBHOOK_ENABLE_WORKER",
        "WEBHOOK_BM25_INDEX_PATH",
        "WEBHOOK_VECTOR_DIM",
    }
)

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)?")

# Of an API parameter: Postgres can still subtract it from the current time.
_LONGEST_PARAMETER = 999_999 * 86400.0

T = TypeVar("T")

Positive = Annotated[int, msgspec.Meta(ge=1)]


Urls = Annotated[str, msgspec.Meta(pattern=r"^[^,\s]+(\s*,\s*[^,\s]+)*$")]

_HOST = r"([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?"
Hosts = Annotated[str, msgspec.Meta(pattern=rf"^({_HOST}(\s*,\s*{_HOST})*)?$")]


class Seconds(float):
    """A duration: `30`, `120.0`, `30s`, `10m`, `24h`, `30d` or `250ms`."""

    expected: ClassVar[str] = "a duration such as 30s, 10m or 250ms, at most 999999d"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "string", "pattern": "^[0-9]{1,6}(ms|s|m|h|d)?$", "examples": ["30s", "10m"],
    }  # fmt: skip

    @classmethod
    def parse(cls, text: str) -> "Seconds":
        """Read a duration of an API request. Raises ValueError."""
        try:
            duration = seconds_of(text)
        except ValueError:
            raise ValueError(f"expected {cls.expected}") from None
        if duration > _LONGEST_PARAMETER:
            raise ValueError(f"expected {cls.expected}")
        return duration


class Secret(str):
    """A string that is redacted in logs and tracebacks; empty means not set."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('**********')" if self else "Secret('')"

    @property
    def values(self) -> "list[Secret]":
        """The valid values, separated by commas: two while a secret is rotated."""
        return [Secret(value) for value in map(str.strip, self.split(",")) if value]


class _Block(msgspec.Struct, frozen=True, kw_only=True, rename=lambda name: PREFIX + name.upper()):
    """A group of settings that are read together."""


class ProcessSettings(_Block, frozen=True, kw_only=True):
    """The settings of every service process."""

    host: str = "127.0.0.1"
    log_level: str = "info"
    log_format: str = "json"  # json | console
    test_mode: bool = False  # allows weak secrets and failpoints
    failpoint: str = ""  # where this process kills itself (shared/pipeline/failpoints.py)


class RedisSettings(_Block, frozen=True, kw_only=True):
    redis_url: str = "redis://127.0.0.1:6379/0"


class PostgresSettings(_Block, frozen=True, kw_only=True):
    # `postgresql+asyncpg://` is accepted, too.
    database_url: str = "postgresql://127.0.0.1:5432/millstream"


class RuntimeSettings(_Block, frozen=True, kw_only=True):
    """The stage loop: concurrency, leases, gates and time limits (docs/architecture.md)."""

    stage_concurrency: Positive = 10  # batch messages in flight in one process
    lease: Seconds = Seconds(30)  # an entry idle for longer may be reclaimed
    lease_renewal: Seconds = Seconds(5)
    drain_timeout: Seconds = Seconds(25)  # below the 30 s that orchestrators give before SIGKILL
    max_deliveries: Positive = (
        # Deliveries of an entry before it becomes a dead letter; each but the first follows a
        # crash.
        5
    )
    # Errors that are the document's fault before it becomes a dead letter.
    max_attempts: Positive = 5
    indexing_job_timeout: Seconds = Seconds(600)  # a batch message is expected to be in one stage
    document_timeout: Seconds = Seconds(300)  # one document in one stage
    stream_entries: Positive = 64  # mark of a lane's stream; a quarter of it for the high lane
    # Mark of an embed lane; the index lanes have twice as much.
    stream_bytes: Positive = 128 * 1024 * 1024


class DispatchSettings(_Block, frozen=True, kw_only=True):
    # Documents per message.
    worker_batch_size: Annotated[str, msgspec.Meta(pattern="^([1-9][0-9]{0,3}|auto)$")] = "4"


class IngestSettings(_Block, frozen=True, kw_only=True):
    ingest_port: int | None = None  # default 50108
    api_secret: Secret = Secret()  # Bearer
    secret: Secret = Secret()  # HMAC key of webhook signatures
    callback_secret: Secret = Secret()  # key that signs completion webhooks
    max_body_bytes: int = 64 * 1024 * 1024
    max_document_bytes: int = 8 * 1024 * 1024
    deduplication_window: Seconds = Seconds(86400)
    retention: Seconds = Seconds(30 * 86400)  # finished jobs, texts that are not live, metrics rows
    cache_retention: Seconds = Seconds(90 * 86400)  # embeddings that were not used
    search_url: str = "http://127.0.0.1:50111"
    callback_allow_private: bool = False  # callbacks may go to addresses that are not public


class ChunkerSettings(_Block, frozen=True, kw_only=True):
    chunker_port: int | None = None  # default 50109
    max_chunk_tokens: int = 256  # all that TEI gets: special tokens, prefix, text
    chunk_overlap_tokens: int = 50
    chunk_prefix_tokens: int = 48  # of title and headings before the text; 0 leaves them out
    max_chunk_characters: int = 4000
    max_document_chunks: int = 10_000
    tokenizer: str | None = None  # path of a tokenizer.json; default: the bundled model's
    # Below it are the tokenizers that collections may name; default: they may name none.
    tokenizer_directory: str | None = None


class TeiSettings(_Block, frozen=True, kw_only=True):
    # One server or several, separated by commas, all of the same model.
    tei_url: Urls = "http://127.0.0.1:8080"
    # Servers of the same model that embed queries; default: tei_url.
    search_tei_url: Urls | None = None
    # Hosts of other servers that collections may use: HOST or HOST:PORT, separated by commas.
    tei_allowed: Hosts = ""
    tei_api_key: Secret = Secret()  # for the servers of tei_url and search_tei_url only
    tei_host_keys: Secret = Secret()  # for others: HOST:PORT=KEY, separated by commas
    tei_timeout: Seconds = Seconds(30)  # without any response from a server that has a request
    # The most requests in flight from one process to one TEI; no prefix, because the original had
    # none.
    max_concurrent_requests: int = msgspec.field(default=80, name="TEI_MAX_CONCURRENT_REQUESTS")

    def __post_init__(self) -> None:
        if not all(host and key for host, key in self.host_keys):
            name = f"{PREFIX}TEI_HOST_KEYS"
            raise ValueError(f"{name}: expected HOST:PORT=KEY, separated by commas")

    @property
    def host_keys(self) -> "list[tuple[str, Secret]]":
        """Pairs of HOST or HOST:PORT and a key; a host may have several keys."""
        entries = [entry.partition("=") for entry in self.tei_host_keys.values]
        return [(host.strip(), Secret(key.strip())) for host, _, key in entries]

    @property
    def of_queries(self) -> str:
        """The servers that embed queries."""
        return self.search_tei_url or self.tei_url


class EmbedderSettings(_Block, frozen=True, kw_only=True):
    embedder_port: int | None = None  # default 50110


class QdrantSettings(_Block, frozen=True, kw_only=True):
    qdrant_url: str = "http://127.0.0.1:6333"
    qdrant_api_key: Secret = Secret()
    qdrant_timeout: Seconds = Seconds(60)  # one request


class CollectionSettings(_Block, frozen=True, kw_only=True):
    qdrant_collection: str = "pulse_docs"  # the collection of documents without one


class KeywordEngine(enum.StrEnum):
    """The engine of the keyword side of a search."""

    QDRANT = "qdrant"  # sparse vectors; scales with Qdrant
    RANK_BM25 = "rank-bm25"  # in the memory of each search process; up to about 10,000 chunks


class SearchSettings(_Block, frozen=True, kw_only=True):
    api_secret: Secret = Secret()  # Bearer; the same as that of ingest, which forwards searches
    rrf_k: int = 60  # reciprocal rank fusion: 1 / (k + rank), rank from 1
    bm25_k1: float = 1.5
    bm25_b: float = 0.75
    keyword_index: KeywordEngine = KeywordEngine.QDRANT


class IndexerSettings(_Block, frozen=True, kw_only=True):
    indexer_port: int | None = None  # default 50111
    # Between passes over a collection; the points that they delete are hidden already.
    scrub_interval: Seconds = Seconds(3600)


def blocks() -> Iterator[type[_Block]]:
    """Every block of settings, in the order of this file."""
    yield from _Block.__subclasses__()


def known_variables() -> frozenset[str]:
    """Return every variable that a service reads."""
    return frozenset(
        field.encode_name for block in blocks() for field in msgspec.structs.fields(block)
    )


def load(settings_type: type[T], environ: Mapping[str, str]) -> T:
    """Read `settings_type`, a Struct of blocks, from the environment.

    Raises ConfigurationError for a value that does not fit and for a `WEBHOOK_` name that nothing
    reads.
    """
    _refuse_unknown(environ)
    fields = msgspec.structs.fields(settings_type)  # type: ignore[arg-type]
    annotations = {field.name: field.type for field in fields}
    return settings_type(
        **{name: _load_block(block, environ) for name, block in annotations.items()}
    )


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the names with the prefix that no service reads, each with the nearest known name."""
    known = known_variables() | RETIRED
    unknown = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
    return {name: difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0] for name in unknown}


def retired_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the names that are set but have no effect."""
    return sorted(RETIRED & environ.keys())


def seconds_of(text: str) -> Seconds:
    """Read a duration. Raises ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a duration such as 30s, 10m or 250ms")
    return Seconds(float(match[1]) * _UNITS[match[2] or "s"])


def check_secret(name: str, secret: Secret, *, test_mode: bool) -> None:
    """Raise ConfigurationError if a secret is missing or weak."""
    if len(secret) < MIN_SECRET_CHARACTERS and not test_mode:
        state = "too short" if secret else "not set"
        raise ConfigurationError(
            f"{name} is {state}: set at least {MIN_SECRET_CHARACTERS} characters, "
            "for example from `openssl rand -hex 32`"
        )


def _load_block(block: type[T], environ: Mapping[str, str]) -> T:
    try:
        # An empty variable, as compose files produce them, means "not set".
        return msgspec.convert(
            {k: v for k, v in environ.items() if v}, block, strict=False, dec_hook=_decode
        )
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"a setting is not valid: {error}") from error


def _decode(kind: type, value: Any) -> Any:
    if kind is Seconds:
        return seconds_of(str(value))
    if kind is Secret:
        return Secret(value)
    raise TypeError(f"cannot decode {kind}")


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    for name, nearest in unknown_variables(environ).items():
        raise ConfigurationError(f"{name} is not a setting; did you mean {nearest}?")
