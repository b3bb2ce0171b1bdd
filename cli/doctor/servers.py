"""What is judged of Redis, Postgres, Qdrant and ingest, by what the probes saw of them. No I/O."""

import re
from collections.abc import Collection

import msgspec

from cli.doctor.finding import Finding, Findings, fail, ok, refusal, warn
from indexer.qdrant.release import RECOMMENDED, parse_release, refusal_of, shortcoming_of
from local.servers import URL_VARIABLES
from shared.jobs.targets import Target
from shared.service.health import HealthReport

# More than that is another data centre, a busy machine, or a proxy that thinks. Qdrant is asked once a batch message.
SLOW_ROUND_TRIP_MS = {"redis": 5.0, "postgres": 5.0, "tei": 5.0, "qdrant": 20.0}
_FULL = 0.8  # share of a limit from where somebody should look

_NAMES_A_SETTING = re.compile(r"(.*) \(check (\w+)\)", re.DOTALL)
_VARIABLES = {**URL_VARIABLES, "ingest": "MILLSTREAM_URL"}


class RedisSeen(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of INFO, by their names there, and the shortest round trip."""

    redis_version: str
    aof_enabled: int
    aof_last_write_status: str = "ok"
    role: str = "master"
    used_memory: int = 0  # bytes
    maxmemory: int = 0  # bytes; 0: no limit
    maxmemory_policy: str = "noeviction"
    round_trip_ms: float
    refusal: str | None = None  # why services would not start on it


class PostgresSeen(msgspec.Struct, frozen=True, kw_only=True):
    server_version: str
    fsync: str  # on or off
    synchronous_commit: str  # off, or one of several ways to wait
    is_standby: bool
    connections: int
    max_connections: int
    round_trip_ms: float
    refusal: str | None = None


class CollectionSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A target and its collection in Qdrant."""

    target: Target
    exists: bool
    status: str = "green"
    dimension: int | None = None
    generation: str | None = None


class QdrantSeen(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    round_trip_ms: float
    read_ms: float | None = None  # of 64 points over a kept connection; None: nothing is stored
    collections: list[CollectionSeen]


class IngestSeen(msgspec.Struct, frozen=True, kw_only=True):
    health: HealthReport
    secret_status: int  # of a request with WEBHOOK_API_SECRET
    round_trip_ms: float


def unreachable(service: str, reason: str, instead: str | None = None) -> Finding:
    """A server that does not answer, or not as it should; `reason` may end with `(check SETTING)`.

    `instead` of starting it: correcting its setting, unless something else is to be done.
    """
    runbook = "lost-redis" if service == "redis" else None
    if named := _NAMES_A_SETTING.fullmatch(reason):
        reason, remedy = named[1], f"correct {named[2]}"
    else:
        remedy = f"start it, or {instead or f'correct {_VARIABLES[service]}'}"
    return fail(f"{service}.reachable", f"{service} does not answer as it should: {reason}", remedy, runbook)


def round_trip(server: str, milliseconds: float, instead: str | None = None) -> Finding:
    """The shortest of several round trips; `instead` of pointing the server's setting to another."""
    check, found = f"{server}.round_trip", f"a round trip takes {milliseconds:.1f} ms"
    limit = SLOW_ROUND_TRIP_MS[server]
    if milliseconds <= limit:
        return ok(check, found)
    remedy = (
        f"{instead or f'point {_VARIABLES[server]} to another'}, one in the same network as the services, "
        "without a proxy between, and leave its machine some CPU"
    )
    return warn(check, f"{found}, more than {limit:g} ms", remedy, "slowness")


def judge_redis(seen: RedisSeen) -> Findings:
    """Version, policy, persistence, memory and round trip."""
    findings = [_fitness(seen), _persistence(seen), _memory(seen), round_trip("redis", seen.round_trip_ms)]
    if seen.role != "master":
        remedy = "point WEBHOOK_REDIS_URL to the primary"
        findings.append(fail("redis.role", f"it is a {seen.role}, which takes no writes", remedy))
    return findings


def judge_postgres(seen: PostgresSeen) -> Findings:
    """Schema, durability, connections and round trip."""
    schema = (
        refusal("postgres.schema", seen.refusal)
        if seen.refusal
        else ok("postgres.schema", f"version {seen.server_version}, the schema is this release's")
    )
    trip = round_trip("postgres", seen.round_trip_ms)
    findings = [schema, _durability(seen), _connections(seen), trip]
    if seen.is_standby:
        remedy = "point WEBHOOK_DATABASE_URL to the primary"
        findings.append(fail("postgres.role", "it is a standby, which takes no writes", remedy))
    return findings


def judge_qdrant(seen: QdrantSeen, filled: Collection[str]) -> Findings:
    """Version, round trip and the collections; `filled` are the targets with documents that search shows."""
    trips = [round_trip("qdrant", seen.round_trip_ms)]
    if seen.read_ms is not None:
        trips.append(_read(seen.read_ms))
    return [
        _qdrant_version(seen.version),
        *trips,
        *(_collection(each, has_documents=each.target.target in filled) for each in seen.collections),
    ]


def judge_ingest(seen: IngestSeen) -> Findings:
    """Whether it lets us in, and whether it sees all servers itself."""
    findings: Findings = []
    if seen.secret_status in {401, 403}:
        remedy = "set WEBHOOK_API_SECRET to that of ingest, for example with `set -a; . .millstream/stack.env`"
        findings.append(fail("ingest.secret", f"ingest refuses the API secret ({seen.secret_status})", remedy))
    for service, state in seen.health.services.items():
        if state != "healthy":
            remedy = f"look at {_VARIABLES[service]} of ingest, which may be another than here"
            findings.append(fail("ingest.health", f"ingest finds {service} {state}", remedy))
    return findings or [ok("ingest.health", f"ingest is healthy and lets us in, {seen.round_trip_ms:.1f} ms")]


def _fitness(seen: RedisSeen) -> Finding:
    if seen.refusal is None:
        return ok("redis.policy", f"version {seen.redis_version}, policy {seen.maxmemory_policy}")
    if seen.maxmemory_policy == "noeviction":
        return refusal("redis.version", seen.refusal)
    return refusal("redis.policy", seen.refusal, "memory")


def _persistence(seen: RedisSeen) -> Finding:
    check = "redis.persistence"
    if not seen.aof_enabled:
        return warn(
            check,
            "the append-only file is off: a restart loses what is under way, which is then worked on again",
            "`redis-cli CONFIG SET appendonly yes`, and the same in its configuration file",
            "lost-redis",
        )
    if seen.aof_last_write_status != "ok":
        return fail(
            check, "the last write to the append-only file failed", "make room on the disk of Redis", "lost-redis"
        )
    return ok(check, "the append-only file is on")


def _memory(seen: RedisSeen) -> Finding:
    used = f"{seen.used_memory / 2**20:.0f} MiB in use"
    if not seen.maxmemory:
        return ok("redis.memory", f"{used}, without a limit")
    share = seen.used_memory / seen.maxmemory
    found = f"{used} of {seen.maxmemory / 2**20:.0f} MiB ({share:.0%})"
    if share < _FULL:
        return ok("redis.memory", found)
    remedy = "raise maxmemory of Redis, or lower WEBHOOK_STREAM_BYTES (docs/operations.md has the sum)"
    return (fail if share >= 1 else warn)("redis.memory", found, remedy, "memory")


def _qdrant_version(version: str) -> Finding:
    check, remedy = "qdrant.version", f"upgrade it to {RECOMMENDED} or later"
    if reason := refusal_of(version):
        return fail(check, reason, remedy)
    if reason := shortcoming_of(version):
        return warn(check, reason, remedy)
    if parse_release(version) is None:
        return warn(check, f"version {version!r} cannot be read", remedy)
    return ok(check, f"version {version}")


def _read(milliseconds: float) -> Finding:
    check, found = "qdrant.read_round_trip", f"a read over a kept connection takes {milliseconds:.1f} ms"
    limit = SLOW_ROUND_TRIP_MS["qdrant"]
    if milliseconds <= limit:
        return ok(check, found)
    remedy = (
        "let no proxy on the way compress or buffer Qdrant's answers (in chunks, the last segment of each waits 40 ms "
        "for an ACK), and leave its machine some CPU"
    )
    return warn(check, f"{found}, more than {limit:g} ms", remedy, "slowness")


def _durability(seen: PostgresSeen) -> Finding:
    off = [name for name in ("fsync", "synchronous_commit") if getattr(seen, name) == "off"]
    if off:
        settings = " ".join(f"ALTER SYSTEM SET {name} = on;" for name in off)
        found = f"{' and '.join(off)} off: what was accepted may be lost in a power cut"
        return fail("postgres.durability", found, f"`{settings} SELECT pg_reload_conf()`")
    return ok("postgres.durability", "commits are durable")


def _connections(seen: PostgresSeen) -> Finding:
    found = f"{seen.connections} of {seen.max_connections} connections in use"
    if seen.connections < _FULL * seen.max_connections:
        return ok("postgres.connections", found)
    remedy = "raise max_connections of Postgres: every process takes up to ten"
    return warn("postgres.connections", found, remedy)


def _collection(seen: CollectionSeen, *, has_documents: bool) -> Finding:
    check, name = "qdrant.collection", seen.target.target
    if not seen.exists:
        if not has_documents:
            return ok(check, f"{name} is made when its first document comes")
        return fail(
            check,
            f"{name} is missing, although documents are indexed in it",
            "run an indexer: within ten seconds it makes the collection anew and fills it from Postgres "
            "(`millstream jobs list` shows the reindex_job)",
        )
    if seen.generation != seen.target.generation:
        found = f"{name} is not the collection that Postgres knows: it was restored from elsewhere, or made by others"
        return fail(check, found, f"drop {name} in Qdrant, and an indexer fills it again")
    if seen.dimension != seen.target.dimension:
        found = f"{name} holds vectors of {seen.dimension} dimensions, Postgres says {seen.target.dimension}"
        return fail(check, found, f"drop {name} in Qdrant, and an indexer fills it again")
    if seen.status == "red":
        return fail(check, f"{name} is red: Qdrant cannot work on it", "read Qdrant's log; its disk may be full")
    return ok(check, f"{name} is {seen.status}, {seen.dimension} dimensions")
