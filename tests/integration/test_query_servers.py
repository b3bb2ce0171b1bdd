"""TEI servers of their own for queries: which server gets what, and the refusal of another model."""

import subprocess
import sys
from collections.abc import Iterator

import aiohttp
import pytest
from structlog.testing import capture_logs

from indexer.search.embedding.query_servers import check_query_servers
from shared.service.errors import ConfigurationError
from shared.service.settings import TeiSettings
from shared.tei.client import CANARY
from tests.support.local_stack import bare_environ
from tests.support.pipeline import Pipeline, running_pipeline
from tests.support.tei_stand_in import StandInSettings, TeiStandIn
from tests.support.threaded_tei import ThreadedTei, threaded_tei

DIMENSION = 32
NOBODY = "http://127.0.0.1:9"

Servers = tuple[ThreadedTei, ThreadedTei]


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """The server of documents, and that of queries."""
    with threaded_tei(DIMENSION) as of_documents, threaded_tei(DIMENSION) as of_queries:
        yield of_documents, of_queries


@pytest.fixture(scope="module")
def separate(servers: Servers) -> Iterator[Pipeline]:
    of_documents, of_queries = servers
    with running_pipeline(
        WEBHOOK_TEI_URL=of_documents.url, WEBHOOK_SEARCH_TEI_URL=of_queries.url
    ) as running:
        yield running


def test_queries_go_to_their_servers_and_documents_to_the_others(
    separate: Pipeline, servers: Servers
) -> None:
    of_documents, of_queries = servers
    pages = [
        {"url": f"https://example.com/{n}", "markdown": f"Heron number {n}."} for n in range(20)
    ]
    separate.finished(separate.index(pages))
    queries = [f"where is heron {n}" for n in range(5)]
    for query in queries:
        answer = separate.http.post("/api/search", json={"query": query, "mode": "semantic"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["results"]
    assert of_queries.texts == queries
    embedded = {text for text in of_documents.texts if text != CANARY}
    assert len(embedded) == len(pages)
    assert all("Heron number" in text for text in embedded)


@pytest.mark.parametrize("module", ["indexer", "indexer.search_api"])
def test_a_service_that_would_embed_queries_with_another_model_does_not_start(
    separate: Pipeline, module: str
) -> None:
    with threaded_tei(DIMENSION, model_id="another") as wrong:
        environ = bare_environ(**{**separate.env, "WEBHOOK_SEARCH_TEI_URL": wrong.url})
        done = subprocess.run(
            [sys.executable, "-m", module],
            env=environ, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode != 0, said
    assert (
        f"{wrong.url.removeprefix('http://')} is to embed queries and serves another, but "
        "WEBHOOK_TEI_URL serves stand-in: point WEBHOOK_SEARCH_TEI_URL to servers of stand-in"
    ) in said
    assert "Traceback" not in said


async def test_a_server_that_does_not_answer_does_not_keep_a_process_from_starting() -> None:
    async with TeiStandIn() as tei, aiohttp.ClientSession() as session:
        for urls in ((NOBODY, tei.url), (tei.url, NOBODY)):
            settings = TeiSettings(tei_url=urls[0], search_tei_url=urls[1])
            with capture_logs() as logs:
                await check_query_servers(session, settings)
            assert [line["event"] for line in logs] == ["Models of TEI not compared at the start"]


async def test_each_of_several_servers_is_compared() -> None:
    async with (
        TeiStandIn() as right,
        TeiStandIn(StandInSettings(model_id="another")) as wrong,
        aiohttp.ClientSession() as session,
    ):
        urls = f"{right.url},{wrong.url}"
        await check_query_servers(session, TeiSettings(tei_url=right.url, search_tei_url=right.url))
        with pytest.raises(ConfigurationError, match="serves another, but"):
            await check_query_servers(session, TeiSettings(tei_url=right.url, search_tei_url=urls))
