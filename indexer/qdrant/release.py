"""Releases of Qdrant: the oldest one that is supported, and what later ones brought. No I/O, no
client.
"""

import re
from typing import NamedTuple


class Release(NamedTuple):
    """Major and minor number."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


OLDEST = Release(
    1, 16
)  # metadata of collections, by which a lost or foreign collection is recognised
PREFIX = Release(1, 19)  # match.prefix, for `url_prefix`
# Before it, a replay of the write-ahead log after a crash could bring back points that a filter had
# deleted.
RECOMMENDED = Release(1, 19)


def parse_release(version: str) -> Release | None:
    """The release in a version such as `1.20.0-edge0.9.0`; None for a text without one."""
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    return Release(int(numbers[1]), int(numbers[2])) if numbers else None


def refusal_of(version: str) -> str | None:
    """Why a server of this version cannot be used; None if it can, or if the version cannot be
    read.
    """
    release = parse_release(version)
    if release is None or release >= OLDEST:
        return None
    return f"Qdrant {version} is too old: upgrade it to {OLDEST} or later (best {RECOMMENDED})"


def shortcoming_of(version: str) -> str | None:
    """What a supported server of this version does worse than the recommended release."""
    release = parse_release(version)
    if release is None or release >= RECOMMENDED:
        return None
    return (
        f"Qdrant {version} is older than {RECOMMENDED}: searches with `url_prefix` are slow, and "
        "after a crash deleted points may come back, which search hides and the scrubber deletes"
    )
