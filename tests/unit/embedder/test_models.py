"""An embedder opens the model of each target once, and refuses one that does not fit its chunks."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from embedder.compatibility import PROBE, ChunkShape, Served
from embedder.models import Model, Models
from embedder.sending.servers import Servers
from embedder.vectors import VectorSource
from shared.jobs.targets import Target
from shared.service.errors import DependencyError
from shared.service.settings import ChunkerSettings, TeiSettings
from shared.tei.allowed import TeiServer
from shared.tei.client import TeiInfo
from shared.tei.tokenizer import load_tokenizer
from tests.support.virtual_time import in_virtual_time

PROBE_IDS = tuple(load_tokenizer(None).encode(PROBE).ids)


class Rig:
    """Servers that answer, except the unavailable ones."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.unavailable: set[str] = set()
        self.tried: list[str] = []
        self.hanging: dict[str, asyncio.Event] = {}
        self.now = 0.0
        self.models = Models(
            self._open,
            TeiSettings(tei_url="http://default:80", tei_allowed="own,away,a:80,b:80"),
            ChunkerSettings(),
            clock=lambda: self.now,
        )

    async def _open(self, servers: Sequence[TeiServer], shape: ChunkShape) -> Model:
        url = ",".join(server.url for server in servers)
        self.tried.append(url)
        await asyncio.sleep(0)  # so that two may come at once
        if url in self.hanging:
            await self.hanging[url].wait()
        if url in self.unavailable:
            raise DependencyError("tei", "unavailable")
        self.opened.append(url)
        info = TeiInfo(
            model_id=url,
            version="1.9.0",
            max_input_length=512,
            max_batch_tokens=1,
            max_client_batch_size=1,
            max_concurrent_requests=1,
        )
        served = Served(info=info, dimension=8, probe_ids=PROBE_IDS)
        return Model(
            served=served,
            servers=cast("Servers", self),
            vectors=cast("VectorSource", None),
            shapes={shape},
        )

    # servers
    async def probe(self) -> None:
        """All that were opened are available."""

    async def is_unavailable(self) -> bool:
        return False

    async def in_use(self) -> list[Target]:
        return [target(), target("http://own:80"), target("http://away:80")]


def target(tei_url: str | None = None, max_chunk_tokens: int | None = None) -> Target:
    return Target(
        target="docs_1",
        collection="docs",
        generation="g",
        tei_url=tei_url,
        max_chunk_tokens=max_chunk_tokens,
    )


async def test_targets_on_the_same_servers_share_one_model_however_many_come_at_once() -> None:
    rig = Rig()
    default = await rig.models.open_default()
    own = await asyncio.gather(
        *(rig.models.of(target("http://b:80,http://a:80", n)) for n in (128, 256, None))
    )
    assert own[0] is own[1] is own[2] is await rig.models.of(target("http://a:80,http://b:80"))
    assert (
        await rig.models.of(target()) is await rig.models.of(target("http://default:80")) is default
    )
    assert rig.opened == ["http://default:80", "http://b:80,http://a:80"]
    assert {shape.max_tokens for shape in own[0].shapes} == {128, 256}


async def test_chunks_that_are_too_long_for_a_model_wait_and_others_do_not() -> None:
    rig = Rig()
    await rig.models.of(target("http://own:80"))
    with pytest.raises(DependencyError, match="takes 512 tokens"):
        await rig.models.of(target("http://own:80", 1024))
    await rig.models.of(target("http://own:80"))


async def test_servers_that_were_unavailable_are_opened_when_they_are_available_again() -> None:
    rig = Rig()
    rig.unavailable.add("http://own:80")
    with pytest.raises(DependencyError):
        await rig.models.of(target("http://own:80"))
    rig.unavailable.clear()
    with pytest.raises(DependencyError, match="unavailable"):
        await rig.models.of(target("http://own:80"))
    rig.now = 1.0
    assert (await rig.models.of(target("http://own:80"))).served.info.model_id == "http://own:80"


async def test_a_failure_is_remembered_for_a_time_that_grows_up_to_five_seconds() -> None:
    rig = Rig()
    rig.unavailable.add("http://own:80")
    for second in range(60):
        rig.now = float(second)
        for _ in range(10):
            assert await failure_of(rig, "http://own:80") == "tei: unavailable"
    assert 12 <= len(rig.tried) <= 16
    assert await rig.models.open_default(), "the failure of others is not that of these servers"


async def failure_of(rig: Rig, url: str) -> str:
    with pytest.raises(DependencyError) as caught:
        await rig.models.of(target(url))
    return str(caught.value)


@in_virtual_time
async def test_while_servers_hang_one_caller_waits_for_them_and_the_others_go() -> None:
    rig = Rig()
    await rig.models.open_default()  # loads the tokenizer, in a thread
    rig.hanging["http://own:80"] = asyncio.Event()
    first = asyncio.create_task(rig.models.of(target("http://own:80")))
    await asyncio.sleep(0)
    failures = await asyncio.gather(*(failure_of(rig, "http://own:80") for _ in range(9)))
    assert set(failures) == {"tei: its servers do not answer yet"}
    assert rig.tried == ["http://default:80", "http://own:80"]
    rig.hanging["http://own:80"].set()
    assert await first is await rig.models.of(target("http://own:80"))


async def test_the_canary_succeeds_while_the_servers_of_any_target_answer() -> None:
    rig = Rig()
    rig.unavailable |= {"http://default:80", "http://away:80"}
    await rig.models.probe(rig.in_use)
    assert rig.models.default is None
    rig = Rig()
    rig.hanging["http://default:80"] = asyncio.Event()
    await rig.models.probe(rig.in_use)
    rig = Rig()
    rig.unavailable |= {"http://default:80", "http://own:80", "http://away:80"}
    with pytest.raises(DependencyError, match="unavailable"):
        await rig.models.probe(rig.in_use)


async def test_a_target_whose_servers_were_never_opened_counts_as_unavailable() -> None:
    rig = Rig()
    assert await rig.models.is_unavailable(target("http://own:80"))
    await rig.models.of(target("http://own:80"))
    assert not await rig.models.is_unavailable(target("http://own:80"))


async def test_documents_of_a_collection_on_a_forbidden_server_wait_and_nothing_is_sent_to_it() -> (
    None
):
    rig = Rig()
    with pytest.raises(DependencyError, match=r"169\.254\.169\.254:80 is not allowed") as failed:
        await rig.models.of(target("http://169.254.169.254"))
    assert not failed.value.may_be_at_fault  # it costs no attempt
    assert rig.opened == []
