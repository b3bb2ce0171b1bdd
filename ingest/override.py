"""What a sender may choose for its documents: the lane they travel in and the collection they end in."""

import re

from shared.errors import RejectedError
from shared.messages import Lane

# Qdrant refuses path characters in names, and a name travels in URLs and stream headers.
_COLLECTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def parse_lane(text: str | None) -> Lane | None:
    """The lane called `text`, in any case; None if none was asked for. Raises RejectedError `invalid_lane`."""
    name = (text or "").strip().lower()
    if not name:
        return None
    try:
        return Lane(name)
    except ValueError:
        raise RejectedError("invalid_lane", f"lane must be one of {', '.join(Lane)}, not {name[:40]!a}") from None


def parse_collection(text: str | None) -> str | None:
    """The collection's name; None if none was asked for. Raises RejectedError `invalid_collection`."""
    name = (text or "").strip()
    if not name:
        return None
    if not _COLLECTION.fullmatch(name):
        raise RejectedError(
            "invalid_collection",
            f"collection must be 1 to 128 letters, digits, dots, dashes and underscores, not {name[:40]!a}",
        )
    return name
