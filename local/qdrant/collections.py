"""The data directory: collections (each a directory with one shard), their settings, aliases.

D/lock                              held while a server runs
D/aliases.json
D/collections/NAME/collection.json  written last: without it the collection was never finished
D/collections/NAME/shard/           the engine's
D/set-aside/NAME.N                  could not be loaded; kept for a person to look at
D/removed/NAME.N                    on its way out
"""

import fcntl
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, TypeVar
from uuid import UUID

import msgspec
import qdrant_edge as edge
import structlog

from local.qdrant import bodies
from local.qdrant.errors import ApiError, EnginePanicError, is_panic, refusals
from local.qdrant.files import move_into, remove, sync_directory, write_atomically
from local.qdrant.points import EdgeId, Write
from local.qdrant.schema import engine_config, ineffective_settings, vector_schema
from local.qdrant.validation import check_collection_name

log = structlog.get_logger()

T = TypeVar("T")


class DirectoryInUseError(Exception):
    """Another server runs on this data directory."""


class Collection:
    """One open shard. Every call blocks the event loop: the engine does not release the GIL."""

    def __init__(
        self, name: str, path: Path, settings: bodies.CreateCollection, shard: edge.EdgeShard
    ) -> None:
        self.name = name
        self.path = path
        self.settings = settings
        self.schema = vector_schema(settings)
        self.shard = shard
        self.is_dirty = False
        self._operations = 0

    def read(self, call: Callable[[edge.EdgeShard], T]) -> T:
        """Ask the shard; what the engine refuses is the request's fault (ApiError)."""
        with refusals():
            return _guarded(call, self.shard)

    def apply(self, writes: Iterable[Write]) -> int:
        """Apply checked operations in order and return the last one's number; durable after
        `flush`.
        """
        for write in writes:
            self._require(write.existing)
            self.is_dirty = True
            _guarded(self.shard.update, write.operation)
            self._operations += 1
        return self._operations

    def flush(self) -> None:
        self.shard.flush()
        self.is_dirty = False

    def save_settings(self) -> None:
        write_atomically(self.path / "collection.json", msgspec.json.encode(self.settings))

    def _require(self, ids: list[EdgeId]) -> None:
        if not ids:
            return
        wanted = {UUID(point_id) if isinstance(point_id, str) else point_id for point_id in ids}
        for missing in wanted - {
            record.id for record in self.shard.retrieve(list(wanted), False, False)
        }:
            raise ApiError(404, f"Not found: No point with id {missing} found")


class Directory:
    """All collections of one data directory; `open` it, and `close` it when done."""

    def __init__(self, root: Path, lock: IO[str]) -> None:
        self._root = root
        self._lock = lock
        self._collections: dict[str, Collection] = {}
        self.aliases: dict[str, str] = {}

    @classmethod
    def open(cls, root: Path) -> "Directory":
        """Load every collection; one that cannot be loaded is set aside. Raises
        DirectoryInUseError.
        """
        (root / "collections").mkdir(parents=True, exist_ok=True)
        lock = (root / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise DirectoryInUseError(f"another server runs on {root}") from None
        directory = cls(root, lock)
        directory._load()
        return directory

    def names(self) -> list[str]:
        return sorted(self._collections)

    def get(self, name: str) -> Collection | None:
        """A collection by its name or by an alias."""
        return self._collections.get(self.aliases.get(name, name))

    def require(self, name: str) -> Collection:
        found = self.get(name)
        if found is None:
            raise ApiError.missing_collection(name)
        return found

    def create(self, name: str, settings: bodies.CreateCollection) -> None:
        """Make a collection, durably."""
        check_collection_name(name)
        if name in self._collections:
            raise ApiError.existing_collection(name)
        if name in self.aliases:
            raise ApiError.wrong_input(
                f"Can't create collection with name {name}. Alias with the same name already exists"
            )
        collection = self._build(name, settings)
        self._collections[name] = collection
        if ignored := ineffective_settings(settings):
            log.warning(
                "Collection settings without effect here", collection=name, settings=ignored
            )

    def apply(self, name: str, writes: list[Write]) -> int:
        """Apply checked operations to a collection; see Collection.apply."""
        collection = self.require(name)
        try:
            return collection.apply(writes)
        except EnginePanicError:
            self._recover(collection)
            raise

    def delete(self, name: str) -> bool:
        """Remove a collection and its aliases; False if there was none (an alias is not one)."""
        collection = self._collections.pop(name, None)
        if collection is None:
            return False
        aliases = {alias: target for alias, target in self.aliases.items() if target != name}
        if aliases != self.aliases:
            self.replace_aliases(aliases)
        collection.shard.close()
        remove(collection.path, self._root / "removed")
        return True

    def replace_aliases(self, aliases: dict[str, str]) -> None:
        """All aliases at once, durably."""
        write_atomically(self._root / "aliases.json", msgspec.json.encode(aliases))
        self.aliases = aliases

    def flush(self) -> None:
        """Bring all that was applied to disk; raises the first shard's error after trying every
        one.
        """
        failures = []
        for collection in self._collections.values():
            try:
                if collection.is_dirty:
                    _guarded(collection.flush)
            except Exception as error:  # the other shards must not suffer
                log.error("Shard does not flush", collection=collection.name, error=str(error))
                failures.append(error)
        if failures:
            raise failures[0]

    def close(self) -> None:
        """Flush and close every shard, and let go of the lock."""
        try:
            self.flush()
        finally:
            for collection in self._collections.values():
                collection.shard.close()
            self._lock.close()

    def _build(self, name: str, settings: bodies.CreateCollection) -> Collection:
        path = self._root / "collections" / name
        (path / "shard").mkdir(parents=True)
        try:
            shard = _guarded(edge.EdgeShard.create, str(path / "shard"), engine_config(settings))
            shard.flush()
            collection = Collection(name, path, settings, shard)
            collection.save_settings()
        except Exception:
            remove(path, self._root / "removed")
            raise
        sync_directory(path.parent)
        return collection

    def _load(self) -> None:
        for leftover in (self._root / "removed").glob("*"):
            remove(leftover, self._root / "removed")
        for path in sorted((self._root / "collections").iterdir()):
            self._load_collection(path)
        aliases = self._root / "aliases.json"
        known = (
            msgspec.json.decode(aliases.read_bytes(), type=dict[str, str])
            if aliases.exists()
            else {}
        )
        self.aliases = {alias: name for alias, name in known.items() if name in self._collections}

    def _load_collection(self, path: Path) -> None:
        if not (path / "collection.json").exists():
            log.warning("Collection was never finished, removing it", collection=path.name)
            remove(path, self._root / "removed")
            return
        try:
            settings = msgspec.json.decode(
                (path / "collection.json").read_bytes(), type=bodies.CreateCollection
            )
            shard = _guarded(edge.EdgeShard.load, str(path / "shard"))
        except Exception as error:  # one bad collection must not keep the others away
            target = move_into(path, self._root / "set-aside")
            log.error(
                "Collection cannot be loaded, set aside",
                collection=path.name,
                path=str(target),
                error=str(error),
            )
            return
        collection = Collection(path.name, path, settings, shard)
        self._collections[path.name] = collection
        log.info("Collection loaded", collection=path.name, points=shard.info().points_count)

    def _recover(self, collection: Collection) -> None:
        """After a panic in a write: get the log past that operation, and load what is on disk."""
        log.error(
            "Engine panicked while writing, loading the collection again",
            collection=collection.name,
        )
        del self._collections[collection.name]
        try:
            # The log is cut before the last operation that was applied. Without one after the panic
            # it would come again at every load.
            _guarded(collection.shard.update, edge.UpdateOperation.delete_points([]))
            _guarded(collection.shard.flush)
            _guarded(collection.shard.close)
        except Exception as error:  # whatever it was: loading decides
            log.error("Shard does not close", collection=collection.name, error=str(error))
        self._load_collection(collection.path)


def _guarded(call: Callable[..., T], *arguments: object) -> T:
    """Call the engine; a panic becomes an Exception, so that it ends one request and not the
    process.
    """
    try:
        return call(*arguments)
    except BaseException as error:
        if is_panic(error):
            raise EnginePanicError(str(error)) from error
        raise
