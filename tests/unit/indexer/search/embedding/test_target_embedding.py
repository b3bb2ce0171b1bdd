"""Queries are embedded by the model of the target that is searched."""

from collections.abc import Sequence

import pytest

from indexer.search.embedding.target_embedding import TargetEmbedder
from indexer.search.window import EmbedText
from shared.jobs.targets import Target
from shared.service.errors import DependencyError
from shared.service.settings import TeiSettings
from shared.tei.allowed import TeiServer

DEFAULT = TeiSettings(tei_url="http://default:80", tei_allowed="own:80")
TARGETS = {
    "plain_1": Target(target="plain_1", collection="plain", generation="g"),
    "own_1": Target(
        target="own_1", collection="own", generation="g", tei_url="http://own:80", dimension=2
    ),
    "other_1": Target(
        target="other_1", collection="other", generation="g", tei_url="http://own:80", dimension=3
    ),
}


class Servers:
    """Remembers whose servers embedded what."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.asked: list[tuple[str, str]] = []

    def embedder(self, servers: Sequence[TeiServer]) -> EmbedText:
        (server,) = servers
        self.made.append(server.url)

        async def embed(text: str, _model: str | None) -> list[float]:
            self.asked.append((server.url, text))
            return [1.0, 0.0]

        return embed


async def test_each_target_is_asked_on_its_own_servers_which_those_on_the_same_share() -> None:
    servers = Servers()
    embed = TargetEmbedder(TARGETS.__getitem__, servers.embedder, DEFAULT)
    assert list(await embed("own_1", "one")) == [1.0, 0.0]
    await embed("plain_1", "two")
    await embed("own_1", "three")
    assert servers.asked == [
        ("http://own:80", "one"),
        ("http://default:80", "two"),
        ("http://own:80", "three"),
    ]
    assert servers.made == ["http://own:80", "http://default:80"]


async def test_another_models_vector_is_teis_fault_and_never_searched_with() -> None:
    embed = TargetEmbedder(TARGETS.__getitem__, Servers().embedder, DEFAULT)
    with pytest.raises(DependencyError, match="2 dimensions, those of other_1 have 3"):
        await embed("other_1", "one")


async def test_a_query_is_never_sent_to_a_server_that_is_not_allowed() -> None:
    servers = Servers()
    forbidding = TeiSettings(tei_url="http://default:80")
    embed = TargetEmbedder(TARGETS.__getitem__, servers.embedder, forbidding)
    with pytest.raises(DependencyError, match="own:80 is not allowed"):
        await embed("own_1", "one")
    assert servers.made == []
