"""Ingest answers as its OpenAPI document says: schemathesis asks every route with what fits it and
what does not.
"""

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from shared.service.routes import Route
from tests.support.declared import described_routes
from tests.support.held import HeldEntry
from tests.support.pipeline import Pipeline, frozen

# Whether a request was rightly taken or refused is not among them: what is a usable URL no schema
# can say.
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance, ignored_auth,
    unsupported_method,
]  # fmt: skip
EXAMPLES = 8  # of each route and mode
QUESTIONS = {
    f"{mode} {route.method} {route.path}": (route, mode)
    for route in described_routes()
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or route.query or route.body  # else nothing could be wrong
}


@pytest.fixture(scope="module")
def schema(pipeline: Pipeline) -> Any:
    return schemathesis.openapi.from_url(f"{pipeline.env['MILLSTREAM_URL']}/openapi.json")


def test_the_document_needs_no_credentials(pipeline: Pipeline) -> None:
    answer = httpx.get(f"{pipeline.env['MILLSTREAM_URL']}/openapi.json", trust_env=False)
    assert (answer.status_code, answer.json()["openapi"]) == (200, "3.1.0")


def test_every_declared_route_is_served_and_described(schema: Any) -> None:
    served = {
        (method.upper(), path)
        for path, item in schema.raw_schema["paths"].items()
        for method in item
    }
    assert served == {(route.method, route.path) for route in described_routes()}


@pytest.mark.parametrize(
    ("route", "mode"), [pytest.param(*pair, id=name) for name, pair in QUESTIONS.items()]
)
def test_a_route_answers_as_the_document_says(
    pipeline: Pipeline, schema: Any, route: Route, mode: GenerationMode
) -> None:
    operation = schema[route.path][route.method]
    headers = {"Authorization": f"Bearer {pipeline.env['WEBHOOK_API_SECRET']}"}

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(operation.as_strategy(generation_mode=mode))
    def ask(case: Case[Any]) -> None:
        case.call_and_validate(headers=headers, checks=CHECKS, timeout=30)

    ask()


def test_an_existing_job_is_answered_as_the_document_says(pipeline: Pipeline, schema: Any) -> None:
    job_id = pipeline.index(
        [{"url": "https://example.com/openapi", "markdown": "Text."}, {"markdown": "No URL."}]
    )
    assert pipeline.finished(job_id)["failed"] == 1
    headers = {"Authorization": f"Bearer {pipeline.env['WEBHOOK_API_SECRET']}"}
    ways = [("/api/jobs/{job_id}", "GET"), ("/api/jobs/{job_id}/events", "GET"), ("/api/jobs/{job_id}/retry", "POST"),
            ("/api/jobs/{job_id}", "DELETE"), ("/api/documents", "GET"), ("/api/stats", "GET")]  # fmt: skip
    for path, method in ways:
        query = {"url": "https://example.com/openapi"} if path == "/api/documents" else {}
        case = schema[path][method].Case(path_parameters={"job_id": job_id}, query=query)
        assert case.call_and_validate(
            headers=headers, checks=CHECKS[:4], timeout=30
        ).status_code in {200, 202}


def test_actions_on_a_pending_entry_are_answered_as_the_document_says(
    pipeline: Pipeline, schema: Any
) -> None:
    headers = {"Authorization": f"Bearer {pipeline.env['WEBHOOK_API_SECRET']}"}
    with frozen(pipeline.pids("chunker")):
        entry = HeldEntry(pipeline)
        for action in ("claim", "release", "dead-letter"):
            operation = schema[f"/api/streams/{{stage}}/pending/{{entry_id}}/{action}"]["POST"]
            case = operation.Case(
                path_parameters={"stage": "chunker", "entry_id": entry.id}, query={"lane": "normal"}
            )
            assert (
                case.call_and_validate(headers=headers, checks=CHECKS[:4], timeout=30).status_code
                == 200
            )
    pipeline.http.delete("/api/dead-letters", params={"job_id": entry.job_id})
