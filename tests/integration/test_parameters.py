"""Bad parameters over HTTP, for every route that ingest declares: problems with a reason, never an
error of ours.
"""

import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from shared.service.routes import Route
from tests.support.bad_values import DIGITS, SURROGATE, bad_values
from tests.support.declared import described_routes
from tests.support.pipeline import Pipeline

PATH = {"job_id": str(uuid.UUID(int=1)), "stage": "chunker", "entry_id": "1-1", "id": "1"}
ROUTES = [
    pytest.param(route, id=f"{route.method} {route.path}")
    for route in described_routes()
    if route.query
]


def questions(route: Route) -> Iterator[tuple[str, str]]:
    """A parameter's name, and the path with a bad value for it."""
    assert route.query is not None
    for field in msgspec.structs.fields(route.query):
        for value in bad_values(field.type):
            if (
                value != SURROGATE
            ):  # of bytes that are not UTF-8 aiohttp makes replacement characters
                yield (
                    field.encode_name,
                    f"{route.path.format(**PATH)}?{field.encode_name}={quote(value)}",
                )


@pytest.mark.parametrize("route", ROUTES)
def test_a_bad_parameter_is_a_problem_that_names_it(pipeline: Pipeline, route: Route) -> None:
    for name, path in questions(route):
        answer = pipeline.http.request(route.method, path)
        assert answer.status_code == 422, path
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["detail"].startswith(f"invalid value for `{name}`: "), path


@pytest.mark.parametrize("route", ROUTES)
def test_bytes_that_are_not_utf_8_are_no_error_of_ours(pipeline: Pipeline, route: Route) -> None:
    assert route.query is not None
    for field in msgspec.structs.fields(route.query):
        for value in ("%FF", "%ED%A0%80", "%C0%80"):
            path = f"{route.path.format(**PATH)}?{field.encode_name}={value}"
            assert pipeline.http.request(route.method, path).status_code < 500, path


@pytest.mark.parametrize(
    "path",
    ["/api/jobs/{}", "/api/jobs/{}/events", "/api/dead-letters/{}", "/api/streams/{}/pending"],
)
@pytest.mark.parametrize("part", [DIGITS, "%00", "%FF", "%ED%A0%80", "a" * 4000, "-1"])
def test_a_path_with_an_impossible_part_is_not_found(
    pipeline: Pipeline, path: str, part: str
) -> None:
    answer = pipeline.http.get(path.format(part))
    assert (answer.status_code, answer.json()["title"]) == (404, "Not Found")


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (
            {"query": "x", "collection": "\0"},
            "invalid value for `collection`: expected 1 to 128 letters, digits",
        ),
        (
            {"query": "x", "collection": "a/b"},
            "invalid value for `collection`: expected 1 to 128 letters, digits",
        ),
        (
            {"query": "x", "limit": 0},
            "invalid value for `limit`: expected a whole number from 1 to 100",
        ),
        (
            {"query": "x", "mode": "best"},
            "invalid value for `mode`: expected one of hybrid, semantic, keyword",
        ),
        ({"query": "x", "offset": 10**30}, "`offset` + `limit` is 1"),
        ({"query": ""}, "invalid value for `query`: expected text of 1 to 8,000 characters"),
        ({"query": " "}, "invalid value for `query`: expected text that is not blank"),
        ({"query": "x", "filters": {"indexed_after": "soon"}}, "invalid body: "),
        ({"query": "x", "filter": {}}, "invalid body: Object contains unknown field `filter`"),
        ({}, "invalid body: Object missing required field `query`"),
    ],
)
def test_a_bad_search_is_a_problem_with_a_reason(
    pipeline: Pipeline, body: Any, detail: str
) -> None:
    answer = pipeline.http.post("/api/search", json=body)
    assert (answer.status_code, answer.json()["detail"][: len(detail)]) == (422, detail)
