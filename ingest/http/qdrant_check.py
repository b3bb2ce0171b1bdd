"""Whether Qdrant answers.

Asked without its client, which would take half of this service's memory (50 MB).
"""

from http import HTTPStatus

import aiohttp

from shared.service.errors import DependencyError
from shared.service.health import Check
from shared.service.http import UNCOMPRESSED
from shared.service.settings import QdrantSettings


def check_qdrant(session: aiohttp.ClientSession, settings: QdrantSettings) -> Check:
    """A health check: raises DependencyError when Qdrant is unavailable."""

    async def check() -> None:
        try:
            async with session.get(settings.qdrant_url, headers=UNCOMPRESSED) as answer:
                if answer.status != HTTPStatus.OK:
                    raise DependencyError("qdrant", f"HTTP {answer.status}")
        except (aiohttp.ClientError, OSError) as error:
            raise DependencyError("qdrant", f"{type(error).__name__}: {error}") from error

    return check
