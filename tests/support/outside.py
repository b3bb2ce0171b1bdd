"""The TEI and Qdrant that a test run is given to use instead of the embedded ones.

CONTRIBUTING.md describes the variables. `URL` names a server that runs and may have other users,
`COMMAND` starts one, as often as tests need one of their own.
"""

import os
import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path

import msgspec

PARTS = ("qdrant", "tei")

_PLACEHOLDERS = ("port", "data", "key")


class Outside(msgspec.Struct, frozen=True, kw_only=True):
    """What the run was given for one of PARTS; empty texts for nothing."""

    url: str
    key: str
    command: str

    @property
    def is_given(self) -> bool:
        return bool(self.url or self.command)

    @property
    def is_shared(self) -> bool:
        """Whether tests must share one server: none can be started."""
        return bool(self.url) and not self.command

    def argv(self, *, port: int, data: Path, key: str) -> list[str]:
        """The command with its placeholders filled in."""
        values = dict(zip(_PLACEHOLDERS, (str(port), str(data), key), strict=True))
        words = shlex.split(self.command)
        for name, value in values.items():
            words = [word.replace(f"{{{name}}}", value) for word in words]
        return words


def outside(part: str, environ: Mapping[str, str] = os.environ) -> Outside:
    """What was given for this part. Raises ValueError for a command that cannot work."""
    url, key, command = (
        environ.get(f"MILLSTREAM_TEST_{part.upper()}_{what}", "")
        for what in ("URL", "KEY", "COMMAND")
    )
    if command and "{port}" not in command:
        raise ValueError(
            f"MILLSTREAM_TEST_{part.upper()}_COMMAND must hold {{port}}, "
            f"the port to listen on: {command}"
        )
    return Outside(url=url.rstrip("/"), key=key, command=command)


# Marks the collections of this run on a Qdrant that others use, too.
_TOKEN = f"test{secrets.token_hex(4)}"


def own_name(name: str) -> str:
    """A collection's name that no other run has on the same Qdrant."""
    return f"{name}_{_TOKEN}" if outside("qdrant").is_shared else name


def is_own(collection: str) -> bool:
    """Whether the collection has a name from `own_name` of this run."""
    return _TOKEN in collection
