"""The embedded TEI as a process of its own, asked over HTTP, against TEI's published answers."""

import asyncio
import io
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from local.ports import free_port
from local.tei.contract import VERSION

pytestmark = pytest.mark.embedded_server("tei")

REFERENCE = Path(__file__).parents[1] / "data" / "tei" / "minilm-l6-v2-mrl128.json"
KEY = "k" * 32
LONG = "word " * 254  # with both special tokens as long as the model takes
START_TIMEOUT = 30.0

Vectors = npt.NDArray[np.float64]


class Server(NamedTuple):
    process: subprocess.Popen[str]
    url: str


class Answer(NamedTuple):
    status: int
    body: bytes
    content_type: str

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


@contextmanager
def running_server(cache_dir: Path, *options: str) -> Iterator[Server]:
    port = free_port()
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "local.tei",
        f"--port={port}",
        f"--cache-dir={cache_dir}",
    ]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            wait_for_port(process, port)
            yield Server(process, f"http://127.0.0.1:{port}")
        finally:
            process.kill()


def wait_for_port(process: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr and process.stderr.read()
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    pytest.fail("the port did not open")


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tei-cache")


@pytest.fixture(scope="session")
def server(cache_dir: Path) -> Iterator[Server]:
    with running_server(cache_dir) as server:
        yield server


@pytest.fixture(scope="session")
def guarded_server(cache_dir: Path) -> Iterator[Server]:
    """One thread, 40 permits, and a key."""
    options = ("--threads=1", "--max-concurrent-requests=40", f"--api-key={KEY}")
    with running_server(cache_dir, *options) as server:
        yield server


class Client:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def post(self, path: str, body: object, **options: Any) -> Answer:
        sent = body if isinstance(body, bytes) else msgspec.json.encode(body)
        headers = {"content-type": "application/json"} | options.pop("headers", {})
        async with self.session.post(
            path, data=io.BytesIO(sent), headers=headers, **options
        ) as response:
            return Answer(response.status, await response.read(), response.content_type)

    async def get(self, path: str) -> Answer:
        async with self.session.get(path) as response:
            return Answer(response.status, await response.read(), response.content_type)

    async def embed(self, inputs: str | list[str], **options: object) -> Vectors:
        answer = await self.post("/embed", {"inputs": inputs, **options})
        assert answer.status == 200, answer.body
        return np.array(answer.json)

    async def metric(self, sample: str) -> float:
        lines = (await self.get("/metrics")).body.decode().splitlines()
        return next(
            float(line.removeprefix(sample)) for line in lines if line.startswith(f"{sample} ")
        )

    async def wait_for_metric(self, sample: str, value: float) -> None:
        deadline = time.monotonic() + 10
        while await self.metric(sample) != value:
            assert time.monotonic() < deadline, f"{sample} did not become {value}"
            await asyncio.sleep(0.005)


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession(server.url) as session:
        yield Client(session)


@pytest.fixture
async def guarded(guarded_server: Server) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(guarded_server.url, headers=headers) as session:
        yield Client(session)


@pytest.mark.parametrize(("name", "inputs"), [("single", "test"), ("batch", ["test"] * 3)])
async def test_vectors_are_those_that_tei_publishes(
    client: Client, name: str, inputs: str | list[str]
) -> None:
    expected = np.array(msgspec.json.decode(REFERENCE.read_bytes())[name])
    assert np.abs(await client.embed(inputs, dimensions=128) - expected).max() < 1e-5


async def test_similarities_are_those_of_the_model_card(client: Client) -> None:
    sentences = [
        "The weather is lovely today.",
        "It's so sunny outside!",
        "He drove to the stadium.",
    ]
    vectors = await client.embed(sentences)
    assert (vectors @ vectors.T)[[0, 0, 1], [1, 2, 2]] == pytest.approx(
        [0.6660, 0.1046, 0.1411], abs=1e-4
    )


async def test_vectors_have_384_dimensions_and_length_one_unless_asked_otherwise(
    client: Client,
) -> None:
    vectors = await client.embed(["one", "two"])
    raw = await client.embed(["one", "two"], normalize=False)
    lengths = np.linalg.norm(raw, axis=1, keepdims=True)
    assert vectors.shape == (2, 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
    assert np.abs(lengths - 1).min() > 0.1
    assert raw / lengths == pytest.approx(vectors, abs=1e-6)


async def test_a_text_has_the_same_vector_alone_and_in_any_batch(client: Client) -> None:
    texts = [f"Document {number}. " + "More words. " * (number * 7 % 40) for number in range(32)]
    together = await client.embed(texts)
    alone = np.concatenate([await client.embed(text) for text in texts[::5]])
    assert np.abs(together[::5] - alone).max() < 1e-5
    assert np.abs((await client.embed(texts[::-1]))[::-1] - together).max() < 1e-5


async def test_requests_at_the_same_time_get_the_vectors_they_get_alone(client: Client) -> None:
    requests = [
        [f"Request {number}, text {text}" for text in range(number)] for number in range(1, 13)
    ]
    alone = [await client.embed(texts) for texts in requests]
    together = await asyncio.gather(*(client.embed(texts) for texts in requests))
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one - other).max() < 1e-5


async def test_a_long_text_is_cut_to_256_tokens_unless_truncation_is_off(client: Client) -> None:
    tail = LONG + "something entirely different"
    assert np.abs(await client.embed(tail) - await client.embed(LONG, truncate=False)).max() < 1e-5
    left = await client.embed(tail, truncation_direction="Left")
    assert np.abs(left - await client.embed(LONG)).max() > 1e-3


TOO_LONG = "Input validation error: `inputs` must have less than 256 tokens. Given: 257"
TOO_MANY_CHARACTERS = (
    "Input validation error: `inputs` must have less than 64000 characters. Given: 64001"
)
EMPTY = "Input validation error: `inputs` cannot be empty"
TOO_SMALL = "Input validation error: `dimensions` should be positive"
TOO_LARGE = (
    "Input validation error: `dimensions` should be smaller than the maximum embedding dimension."
)


@pytest.mark.parametrize(
    ("body", "status", "error_type", "message"),
    [
        ({"inputs": ""}, 400, "Empty", EMPTY),
        ({"inputs": ["good", ""]}, 400, "Empty", EMPTY),
        ({"inputs": []}, 400, "Empty", EMPTY),
        (
            {"inputs": ["x"] * 33},
            422,
            "Validation",
            "batch size 33 > maximum allowed batch size 32",
        ),
        ({"inputs": ["good", LONG + "x"], "truncate": False}, 422, "Validation", TOO_LONG),
        ({"inputs": "x" * 64_001, "truncate": False}, 422, "Validation", TOO_MANY_CHARACTERS),
        ({"inputs": "x", "dimensions": 0}, 422, "Validation", TOO_SMALL),
        ({"inputs": "x", "dimensions": 385}, 422, "Validation", TOO_LARGE),
    ],
)
async def test_a_bad_request_is_answered_as_tei_does(
    client: Client, body: dict[str, object], status: int, error_type: str, message: str
) -> None:
    answer = await client.post("/embed", body)
    assert (answer.status, answer.content_type) == (status, "application/json")
    assert answer.json == {"error": message, "error_type": error_type}


@pytest.mark.parametrize(
    ("body", "headers", "status", "text"),
    [
        (
            {"inputs": "x" * 2_000_000},
            {},
            413,
            "Failed to buffer the request body: length limit exceeded",
        ),
        (b'{"inputs": ', {}, 400, "Failed to parse the request body as JSON"),
        (b'{"inputs": "\xff"}', {}, 400, "Failed to parse the request body as JSON"),
        (b'{"inputs": "\\ud800 x"}', {}, 400, "Failed to parse the request body as JSON"),
        ({"text": "x"}, {}, 422, "Failed to deserialize the JSON body into the target type"),
        ({"inputs": "x", "dimensions": -1}, {}, 422, "Failed to deserialize the JSON body"),
        (
            {"inputs": "x"},
            {"content-type": "text/plain"},
            415,
            "Expected request with `Content-Type: app",
        ),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused_in_plain_text(
    client: Client, body: object, headers: dict[str, str], status: int, text: str
) -> None:
    answer = await client.post("/embed", body, headers=headers)
    assert (answer.status, answer.content_type) == (status, "text/plain")
    assert answer.body.decode().startswith(text)


async def test_a_payload_of_exactly_the_limit_is_read(client: Client) -> None:
    body = msgspec.json.encode({"inputs": "good"})
    assert (await client.post("/embed", body.ljust(2_000_000))).status == 200


async def test_info_says_what_a_client_must_keep_to(client: Client) -> None:
    info = (await client.get("/info")).json
    assert info.pop("model_sha")
    assert info.pop("tokenization_workers") >= 1
    assert info == {
        "model_id": "sentence-transformers/all-MiniLM-L6-v2",
        "model_dtype": "float32",
        "model_type": {"embedding": {"pooling": "mean"}},
        "max_concurrent_requests": 512,
        "max_input_length": 256,
        "max_batch_tokens": 16384,
        "max_batch_requests": 8,
        "max_client_batch_size": 32,
        "auto_truncate": True,
        "version": VERSION,
        "sha": None,
        "docker_label": None,
    }


async def test_health_is_200_without_a_body(client: Client) -> None:
    answer = await client.get("/health")
    assert (answer.status, answer.body) == (200, b"")


async def test_tokens_come_with_their_characters(client: Client) -> None:
    text = "Größe: 東京 naïve 😀tokens"
    single, batch = (await client.post("/tokenize", {"inputs": [text, "b"]})).json
    assert [token["id"] for token in batch] == [101, 1038, 102]
    assert single[0] == {"id": 101, "text": "[CLS]", "special": True, "start": None, "stop": None}
    ordinary = [token for token in single if not token["special"]]
    assert all(token["text"] == text[token["start"] : token["stop"]] for token in ordinary)
    assert "".join(token["text"] for token in ordinary) == text.replace(" ", "")


async def test_tokenize_counts_what_embed_would_refuse(client: Client) -> None:
    answer = await client.post("/tokenize", {"inputs": LONG + "x", "add_special_tokens": False})
    assert len(answer.json[0]) == 255
    assert (await client.post("/tokenize", {"inputs": ""})).status == 400
    assert (await client.post("/tokenize", {"inputs": ["x"] * 33})).status == 422


async def test_metrics_count_requests_inputs_and_refusals(client: Client) -> None:
    samples = [
        'te_request_count_total{method="batch"}',
        'te_request_success_total{method="batch"}',
        'te_request_failure_total{err="empty"}',
        "te_embed_count_total",
        "te_embed_success_total",
        "te_embed_tokens_total",
    ]
    before = [await client.metric(sample) for sample in samples]
    await client.embed(["one", "two words"])
    await client.post("/embed", {"inputs": [""]})
    after = [await client.metric(sample) for sample in samples]
    assert [new - old for new, old in zip(after, before, strict=True)] == [2, 1, 1, 3, 2, 7]


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}]
)
async def test_a_wrong_key_is_refused_without_a_body(
    guarded_server: Server, headers: dict[str, str]
) -> None:
    async with aiohttp.ClientSession(guarded_server.url, headers=headers) as session:
        stranger = Client(session)
        for answer in (await stranger.post("/embed", {"inputs": "x"}), await stranger.get("/info")):
            assert (answer.status, answer.body) == (401, b"")
        assert (await stranger.get("/health")).status == 200
        assert (await stranger.get("/metrics")).status == 200


async def test_every_input_takes_a_permit_and_without_one_the_answer_is_429(
    guarded: Client,
) -> None:
    long = asyncio.create_task(guarded.embed([LONG] * 32))
    await guarded.wait_for_metric("te_queue_size", 32)
    refused = await guarded.post("/embed", {"inputs": ["x"] * 9})
    assert (refused.status, refused.json) == (
        429,
        {"error": "Model is overloaded", "error_type": "Overloaded"},
    )
    assert not long.done()
    assert (await guarded.embed(["x"] * 8)).shape == (8, 384)
    assert (await long).shape == (32, 384)
    assert await guarded.metric("te_queue_size") == 0


async def test_a_client_that_disconnects_frees_its_permits(guarded: Client) -> None:
    await guarded.wait_for_metric("te_queue_size", 0)
    answered = await guarded.metric("te_embed_success_total")
    gone = asyncio.create_task(guarded.embed([LONG] * 32))
    await guarded.wait_for_metric("te_queue_size", 32)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    await guarded.wait_for_metric("te_queue_size", 0)
    assert await guarded.metric("te_embed_success_total") == answered


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_status_0_after_the_last_answer(
    cache_dir: Path, number: signal.Signals
) -> None:
    with running_server(cache_dir) as server:
        async with aiohttp.ClientSession(server.url) as session:
            client = Client(session)
            idle = await session.get("/health")  # keeps its connection open
            answer = asyncio.create_task(client.embed([LONG] * 8))
            await client.wait_for_metric("te_queue_size", 8)
            server.process.send_signal(number)
            assert (await answer).shape == (8, 384)
            _, errors = await asyncio.to_thread(server.process.communicate, None, 10)
            idle.close()
        assert (server.process.returncode, errors) == (0, "")


async def test_the_first_connection_that_is_accepted_is_answered(tmp_path: Path) -> None:
    with running_server(tmp_path / "new" / "cache") as server:
        async with aiohttp.ClientSession(server.url) as session:
            assert (await Client(session).embed("x")).shape == (1, 384)


def test_a_taken_port_is_named_and_not_a_traceback(server: Server, cache_dir: Path) -> None:
    port = server.url.rpartition(":")[2]
    command = [sys.executable, "-m", "local.tei", f"--port={port}", f"--cache-dir={cache_dir}"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=START_TIMEOUT, check=False
    )
    assert done.returncode == 1
    assert port in done.stderr
    assert "Traceback" not in done.stderr
