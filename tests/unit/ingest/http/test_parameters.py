"""Every parameter of every route, from the declarations: a bad value is 422 and the error names the
parameter.
"""

from typing import Any

import msgspec
import pytest
from multidict import MultiDict

from shared.service.http import ProblemError
from shared.service.parameters import expected, read_body, read_path, read_query
from shared.service.routes import Route
from tests.support.bad_values import bad_values
from tests.support.declared import declared_routes

Fields = dict[str, msgspec.structs.FieldInfo]

PARAMETERS = [
    pytest.param(route, field, id=f"{route.method} {route.path} {field.encode_name}")
    for route in declared_routes()
    if route.query is not None
    for field in msgspec.structs.fields(route.query)
]
PATH_PARAMETERS = [
    pytest.param(name, kind, id=f"{route.method} {route.path} {name}")
    for route in declared_routes()
    for name, kind in route.path_parameters.items()
    if kind is not str
]
STRICT = [
    pytest.param(route, id=f"{route.method} {route.path}")
    for route in declared_routes()
    if not route.is_lenient
]


def refusal(route: Route, *query: tuple[str, str]) -> str:
    """Read a query that must be refused; the detail of the error."""
    with pytest.raises(ProblemError) as refused:
        read_query(MultiDict(query), route.query or msgspec.Struct, is_lenient=route.is_lenient)
    assert refused.value.status == 422
    return refused.value.detail


@pytest.mark.parametrize(("route", "field"), PARAMETERS)
def test_a_bad_value_is_refused_by_name(route: Route, field: msgspec.structs.FieldInfo) -> None:
    for value in bad_values(field.type):
        detail = refusal(route, (field.encode_name, value))
        assert detail.startswith(f"invalid value for `{field.encode_name}`: "), value
        assert detail.encode()


@pytest.mark.parametrize(("route", "field"), PARAMETERS)
def test_what_was_expected_is_said_in_words(route: Route, field: msgspec.structs.FieldInfo) -> None:
    assert expected(field.type) != "another type of value"
    assert "<" not in expected(field.type)


@pytest.mark.parametrize(("name", "kind"), PATH_PARAMETERS)
def test_a_path_with_an_impossible_part_does_not_exist(name: str, kind: Any) -> None:
    for value in bad_values(kind):
        with pytest.raises(ProblemError, match=f"no such `{name}`") as refused:
            read_path(name, value, kind)
        assert refused.value.status == 404


@pytest.mark.parametrize("route", STRICT)
def test_an_unknown_parameter_is_refused(route: Route) -> None:
    assert refusal(route, ("unknown", "1")).startswith("unknown parameter `unknown`: ")


@pytest.mark.parametrize(("route", "field"), PARAMETERS)
def test_a_repeated_parameter_is_refused(route: Route, field: msgspec.structs.FieldInfo) -> None:
    if not route.is_lenient:
        detail = refusal(route, (field.encode_name, "1"), (field.encode_name, "1"))
        assert detail == f"repeated parameter `{field.encode_name}`: expected it once"


def test_a_misspelt_parameter_is_answered_with_the_right_name() -> None:
    [jobs] = [
        route for route in declared_routes() if (route.method, route.path) == ("GET", "/api/jobs")
    ]
    assert (
        refusal(jobs, ("stauts", "failed")) == "unknown parameter `stauts`: did you mean `status`?"
    )


def test_the_webhook_ignores_unknown_parameters_but_not_bad_ones() -> None:
    [webhook] = [route for route in declared_routes() if route.path == "/api/webhook/firecrawl"]
    assert webhook.query is not None
    query = read_query(
        MultiDict([("lane", "HIGH"), ("lane", "low"), ("from", "proxy")]),
        webhook.query,
        is_lenient=True,
    )
    assert getattr(query, "lane", None) == "high"
    assert (
        refusal(webhook, ("lane", "fast"))
        == "invalid value for `lane`: expected one of high, normal, low"
    )


BODIES = [
    pytest.param(route, field, id=f"{route.method} {route.path} {field.encode_name}")
    for route in declared_routes()
    if route.body is not None and not route.is_body_read_by_handler
    for field in msgspec.structs.fields(route.body)
]
BAD_JSON: list[Any] = [
    {},
    [],
    [{}],
    -(10**30),
    10**30,
    1.5e300,
    "a\0b",
    "nonsense" * 1000,
    {"a": None},
]


@pytest.mark.parametrize(("route", "field"), BODIES)
def test_a_field_of_a_body_is_read_or_refused_with_a_reason(
    route: Route, field: msgspec.structs.FieldInfo
) -> None:
    assert route.body is not None
    refused: list[tuple[Any, ProblemError]] = []
    for value in BAD_JSON:
        try:
            read_body(msgspec.json.encode({field.encode_name: value}), route.body)
        except ProblemError as error:
            refused.append((value, error))
    assert {} in [value for value, _ in refused]
    assert "a\0b" in [value for value, _ in refused]
    for value, problem in refused:
        assert problem.status == 422
        assert problem.detail.startswith(("invalid value for `", "invalid body: ")), value


@pytest.mark.parametrize("digits", [30, 5000])
def test_a_number_of_too_many_digits_in_a_body_is_refused(digits: int) -> None:
    [replay] = [route for route in declared_routes() if route.path == "/api/dead-letters/replay"]
    assert replay.body is not None
    with pytest.raises(ProblemError) as refused:
        read_body(b'{"ids": [' + b"9" * digits + b"]}", replay.body)
    assert refused.value.status == 422
