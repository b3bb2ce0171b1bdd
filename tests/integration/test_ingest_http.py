"""What ingest refuses, and that it enqueues nothing then."""

import httpx
import pytest

from tests.support.inspection import query
from tests.support.pipeline import Pipeline

WEBHOOK = "/api/webhook/firecrawl"
DOCUMENT = b'{"url": "https://example.com/", "markdown": "Text."}'


def jobs(pipeline: Pipeline) -> int:
    return int(query(pipeline, "SELECT count(*) AS n FROM webhook.jobs")[0]["n"])


def send(
    pipeline: Pipeline, method: str, path: str, body: bytes = b"", **headers: str
) -> httpx.Response:
    url = pipeline.env["MILLSTREAM_URL"] + path
    return httpx.request(method, url, content=body, headers=headers, timeout=30.0, trust_env=False)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"X-Firecrawl-Signature": "sha256=" + "0" * 64},
        {"X-Firecrawl-Signature": "nonsense"},
        {"Authorization": "Basic YTpi"},
    ],
)
@pytest.mark.parametrize("path", [WEBHOOK, "/api/index", "/api/index/batch", "/api/nothing"])
def test_without_the_right_secret_the_answer_is_401_and_nothing_is_enqueued(
    pipeline: Pipeline, path: str, headers: dict[str, str]
) -> None:
    before = jobs(pipeline)
    response = send(pipeline, "POST", path, DOCUMENT, **headers)
    assert response.status_code == 401
    assert response.headers["Content-Type"] == "application/problem+json"
    assert jobs(pipeline) == before


def test_a_wrong_signature_is_refused_whatever_the_token(pipeline: Pipeline) -> None:
    token = f"Bearer {pipeline.env['WEBHOOK_API_SECRET']}"
    headers = {"Authorization": token, "X-Firecrawl-Signature": "sha256=" + "0" * 64}
    assert send(pipeline, "POST", WEBHOOK, DOCUMENT, **headers).status_code == 401


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (WEBHOOK, b"", 400),
        (WEBHOOK, b"{", 400),
        (WEBHOOK, b"\xff\xfe", 400),
        (WEBHOOK, b"[1]", 422),
        (WEBHOOK, b'{"success": true, "data": 7}', 422),
        ("/api/index", b"{", 400),
        ("/api/index", b'"text"', 422),
        ("/api/index", b'{"markdown": "No url."}', 422),
        ("/api/index", b'{"url": "https://example.com/", "markdown": ["no", "text"]}', 422),
        ("/api/index/batch", b'{"documents": {}}', 422),
        ("/api/index/batch", b'{"documents": []}', 422),
        ("/api/index/batch?lane=fast", DOCUMENT, 422),
        ("/api/index?collection=%2F", DOCUMENT, 422),
        (
            "/api/index/batch",
            b'{"documents": [1], "callback_url": "http://127.0.0.1/"}',
            422,
        ),
        ("/api/index?callback_url=file:///etc/passwd", DOCUMENT, 422),
        ("/api/search", b'{"query": "x", "limit": 0}', 422),
    ],
)
def test_a_bad_body_is_a_problem_with_a_reason_and_enqueues_nothing(
    pipeline: Pipeline, path: str, body: bytes, status: int
) -> None:
    before = jobs(pipeline)
    response = send(
        pipeline, "POST", path, body, Authorization=f"Bearer {pipeline.env['WEBHOOK_API_SECRET']}"
    )
    problem = response.json()
    assert (response.status_code, problem["status"]) == (status, status)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert problem["detail"]
    assert problem["request_id"] == response.headers["X-Request-ID"]
    assert jobs(pipeline) == before


def test_a_body_over_the_limit_is_413(pipeline: Pipeline) -> None:
    body = b'{"url": "https://example.com/", "markdown": "' + b"x" * (17 * 1024 * 1024) + b'"}'
    token = f"Bearer {pipeline.env['WEBHOOK_API_SECRET']}"
    assert send(pipeline, "POST", "/api/index", body, Authorization=token).status_code == 413


@pytest.mark.parametrize(
    "kind", ["crawl.started", "crawl.completed", "agent.action", "something.new"]
)
def test_an_event_without_documents_is_acknowledged_and_enqueues_nothing(
    pipeline: Pipeline, kind: str
) -> None:
    before = jobs(pipeline)
    assert (
        pipeline.webhook({"success": True, "type": kind, "id": "c", "data": []})["status"]
        == "acknowledged"
    )
    assert jobs(pipeline) == before


def test_a_failed_page_is_a_failed_item_with_firecrawls_reason(pipeline: Pipeline) -> None:
    data = [{"metadata": {"sourceURL": "https://example.com/gone"}}]
    event = {"success": False, "type": "crawl.page", "id": "c9", "data": data, "error": "Timed out"}
    answer = pipeline.webhook(event)
    job = pipeline.finished(answer["job_id"])
    assert job["status"] == "failed"
    assert answer["rejected"][0]["url"] == "https://example.com/gone"
    assert "Timed out" in job["results"][0]["error"]


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz", "/metrics"])
@pytest.mark.parametrize("service", ["ingest", "chunker", "embedder", "indexer"])
def test_every_service_answers_its_health_routes_without_credentials(
    pipeline: Pipeline, service: str, path: str
) -> None:
    url = next(row["url"] for row in pipeline.processes if row["service"] == service)
    response = httpx.get(url + path, timeout=10.0, trust_env=False)
    assert response.status_code == 200
    if path == "/health":
        assert response.json()["status"] == "healthy", response.text


@pytest.mark.parametrize(
    "query", ["older_than=99999999999999d", "crawl_id=%00", "status=odd", "after=x", "limit=-1"]
)
def test_a_list_of_jobs_with_invalid_parameters_is_422(pipeline: Pipeline, query: str) -> None:
    assert pipeline.http.get(f"/api/jobs?{query}").status_code == 422


def test_a_job_that_does_not_exist_is_404(pipeline: Pipeline) -> None:
    assert pipeline.http.get("/api/jobs/7f1e7f9a-0000-4000-8000-000000000001").status_code == 404
    assert pipeline.http.get("/api/jobs/nonsense").status_code == 404
