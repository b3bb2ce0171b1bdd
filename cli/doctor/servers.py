"""Judges what the probes observed of Redis, Postgres, Qdrant and ingest. No I/O."""

from collections.abc import Collection

import msgspec

from cli.doctor.finding import Finding, Findings, fail, ok, refusal, warn
from cli.doctor.vantage import VARIABLES
from indexer.qdrant.release import RECOMMENDED, parse_release, refusal_of, shortcoming_of
from shared.jobs.targets import Target
from shared.service.health import HealthReport

# A longer one means another data centre, a busy machine or a slow proxy. The services ask Qdrant
# once for each batch message, and the others more often.
SLOW_ROUND_TRIP_MS = {"redis": 5.0, "postgres": 5.0, "tei": 5.0, "qdrant": 20.0}
_FULL = 0.8  # share of a limit that is worth a warning
_OLD_SNAPSHOT_S = 900.0  # no statement of millstream takes longer than 15 s


class RedisSeen(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of INFO under their own names, and the shortest round trip."""

    redis_version: str
    aof_enabled: int
    aof_last_write_status: str = "ok"
    role: str = "master"
    used_memory: int = 0  # bytes
    maxmemory: int = 0  # bytes; 0: no limit
    maxmemory_policy: str = "noeviction"
    round_trip_ms: float
    refusal: str | None = None  # why services would not start with it


class PostgresSeen(msgspec.Struct, frozen=True, kw_only=True):
    """Settings and state of the server, and the shortest round trip."""

    server_version: str
    fsync: str  # on or off
    synchronous_commit: str  # off, or one of several levels
    is_standby: bool
    connections: int
    max_connections: int
    round_trip_ms: float
    oldest_snapshot_s: float = 0.0  # age of the oldest transaction that this user may see
    refusal: str | None = None  # why services would not start with it


class CollectionSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A target and its collection in Qdrant."""

    target: Target
    exists: bool
    status: str = "green"
    dimension: int | None = None
    generation: str | None = None


class QdrantSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The release, the collections of all targets, and the shortest round trips."""

    version: str
    round_trip_ms: float
    read_ms: float | None = None  # of 64 points over a kept connection; None: nothing is stored
    collections: list[CollectionSeen]


class IngestSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The answers of ingest at `url`."""

    url: str
    health: HealthReport
    secret_status: int  # HTTP status of a request with WEBHOOK_API_SECRET
    round_trip_ms: float


def reachable(service: str, where: str) -> Finding:
    """A server that answers at `where`, an address without credentials."""
    return ok(f"{service}.reachable", f"answers at {where}")


def round_trip(server: str, milliseconds: float, instead: str | None = None) -> Finding:
    """Whether the shortest of several round trips is short enough.

    `instead` replaces the advice to point the server's setting to another address.
    """
    check, found = f"{server}.round_trip", f"a round trip takes {milliseconds:.1f} ms"
    limit = SLOW_ROUND_TRIP_MS[server]
    if milliseconds <= limit:
        return ok(check, found)
    remedy = (
        f"{instead or f'point {VARIABLES[server]} to another'}, one in the same network as the "
        "services, without a proxy between, and leave its machine some CPU"
    )
    return warn(check, f"{found}, more than {limit:g} ms", remedy, "slowness")


def judge_redis(seen: RedisSeen) -> Findings:
    """Version, policy, persistence, memory, round trip and role."""
    trip = round_trip("redis", seen.round_trip_ms)
    findings = [_fitness(seen), _persistence(seen), _memory(seen), trip]
    if seen.role != "master":
        found = f"Redis is a {seen.role}, which accepts no writes"
        findings.append(fail("redis.role", found, "point WEBHOOK_REDIS_URL to the primary"))
    return findings


def judge_postgres(seen: PostgresSeen) -> Findings:
    """Schema, durability, connections, round trip and role."""
    schema = (
        refusal("postgres.schema", seen.refusal)
        if seen.refusal
        else ok(
            "postgres.schema",
            f"version {seen.server_version}, and the schema is that of this release",
        )
    )
    trip = round_trip("postgres", seen.round_trip_ms)
    findings = [schema, _durability(seen), _connections(seen), trip]
    if seen.oldest_snapshot_s > _OLD_SNAPSHOT_S:
        findings.append(
            warn(
                "postgres.snapshot",
                f"a transaction is open for {seen.oldest_snapshot_s:.0f} s: Postgres keeps all "
                "rows that were changed since, and each release of documents reads past them",
                "end it (`SELECT pid, xact_start, query FROM pg_stat_activity ORDER BY "
                "xact_start`); take backups with pg_basebackup or from a standby, not with pg_dump",
                "slowness",
            )
        )
    if seen.is_standby:
        found = "Postgres is a standby, which accepts no writes"
        findings.append(fail("postgres.role", found, "point WEBHOOK_DATABASE_URL to the primary"))
    return findings


def judge_qdrant(seen: QdrantSeen, filled: Collection[str]) -> Findings:
    """Release, round trips and collections; `filled` are the targets with searchable documents."""
    trips = [round_trip("qdrant", seen.round_trip_ms)]
    if seen.read_ms is not None:
        trips.append(_read(seen.read_ms))
    collections = [
        _collection(each, has_documents=each.target.target in filled) for each in seen.collections
    ]
    return [_qdrant_version(seen.version), *trips, *collections]


def judge_ingest(seen: IngestSeen) -> Findings:
    """Whether it accepts the API secret, and whether it reaches all its servers."""
    findings: Findings = []
    if seen.secret_status in {401, 403}:
        findings.append(
            fail(
                "ingest.secret",
                f"ingest at {seen.url} refuses the API secret (HTTP {seen.secret_status})",
                "set WEBHOOK_API_SECRET to that of ingest, for example with "
                "`set -a; . .millstream/stack.env; set +a`",
            )
        )
    for service, state in seen.health.services.items():
        if state != "healthy":
            remedy = f"check {VARIABLES[service]} of ingest, which may differ from the one here"
            found = f"ingest at {seen.url} reports {service} {state}"
            findings.append(fail("ingest.health", found, remedy))
    healthy = (
        f"ingest at {seen.url} reaches all its servers and accepts the secret, "
        f"{seen.round_trip_ms:.1f} ms"
    )
    return findings or [ok("ingest.health", healthy)]


def _fitness(seen: RedisSeen) -> Finding:
    if seen.refusal is None:
        found = f"version {seen.redis_version}, policy {seen.maxmemory_policy}"
        return ok("redis.policy", found)
    if seen.maxmemory_policy == "noeviction":
        return refusal("redis.version", seen.refusal)
    return refusal("redis.policy", seen.refusal, "memory")


def _persistence(seen: RedisSeen) -> Finding:
    check = "redis.persistence"
    if not seen.aof_enabled:
        return warn(
            check,
            "the append-only file is off: a restart loses the streams, and their documents start "
            "again from Postgres",
            "`redis-cli CONFIG SET appendonly yes`, and the same in its configuration file",
            "lost-redis",
        )
    if seen.aof_last_write_status != "ok":
        found = "the last write to the append-only file failed"
        return fail(check, found, "make room on the disk of Redis", "lost-redis")
    return ok(check, "the append-only file is on")


def _memory(seen: RedisSeen) -> Finding:
    used = f"{seen.used_memory / 2**20:.0f} MiB in use"
    if not seen.maxmemory:
        return ok("redis.memory", f"{used}, without a limit")
    share = seen.used_memory / seen.maxmemory
    found = f"{used} of {seen.maxmemory / 2**20:.0f} MiB ({share:.0%})"
    if share < _FULL:
        return ok("redis.memory", found)
    remedy = "raise maxmemory of Redis, or lower WEBHOOK_STREAM_BYTES (see docs/operations.md)"
    return (fail if share >= 1 else warn)("redis.memory", found, remedy, "memory")


def _qdrant_version(version: str) -> Finding:
    check, remedy = "qdrant.version", f"upgrade it to {RECOMMENDED} or later"
    if reason := refusal_of(version):
        return fail(check, reason, remedy)
    if reason := shortcoming_of(version):
        return warn(check, reason, remedy)
    if parse_release(version) is None:
        return warn(check, f"version {version!r} is not a release number", remedy)
    return ok(check, f"version {version}")


def _read(milliseconds: float) -> Finding:
    check = "qdrant.read_round_trip"
    found = f"a read over a kept connection takes {milliseconds:.1f} ms"
    limit = SLOW_ROUND_TRIP_MS["qdrant"]
    if milliseconds <= limit:
        return ok(check, found)
    remedy = (
        "let no proxy compress or buffer Qdrant's answers (in chunks, the last segment of each "
        "waits 40 ms for an ACK), and leave its machine some CPU"
    )
    return warn(check, f"{found}, more than {limit:g} ms", remedy, "slowness")


def _durability(seen: PostgresSeen) -> Finding:
    off = [name for name in ("fsync", "synchronous_commit") if getattr(seen, name) == "off"]
    if off:
        settings = " ".join(f"ALTER SYSTEM SET {name} = on;" for name in off)
        found = f"{' and '.join(off)} off: a power cut may lose accepted documents"
        return fail("postgres.durability", found, f"`{settings} SELECT pg_reload_conf()`")
    return ok("postgres.durability", "commits are durable")


def _connections(seen: PostgresSeen) -> Finding:
    found = f"{seen.connections} of {seen.max_connections} connections in use"
    if seen.connections < _FULL * seen.max_connections:
        return ok("postgres.connections", found)
    remedy = "raise max_connections of Postgres: each process takes up to ten"
    return warn("postgres.connections", found, remedy)


def _collection(seen: CollectionSeen, *, has_documents: bool) -> Finding:
    check, name = "qdrant.collection", seen.target.target
    if not seen.exists:
        return _missing(name) if has_documents else ok(check, f"{name} has no documents yet")
    refill = f"drop {name} in Qdrant; an indexer creates and fills it again"
    if seen.generation != seen.target.generation:
        found = (
            f"{name} is not the collection that Postgres knows: it was restored from elsewhere, "
            "or created by another program"
        )
        return fail(check, found, refill)
    if seen.dimension != seen.target.dimension:
        found = (
            f"{name} holds vectors of {seen.dimension} dimensions, "
            f"Postgres says {seen.target.dimension}"
        )
        return fail(check, found, refill)
    if seen.status == "red":
        found = f"{name} is red: Qdrant cannot use it"
        return fail(check, found, "read Qdrant's log; its disk may be full")
    return ok(check, f"{name} is {seen.status}, {seen.dimension} dimensions")


def _missing(name: str) -> Finding:
    return fail(
        "qdrant.collection",
        f"{name} is missing, although documents are indexed in it",
        "run an indexer: within ten seconds it creates the collection and fills it from Postgres "
        "(`millstream jobs list` shows the reindex_job)",
    )
