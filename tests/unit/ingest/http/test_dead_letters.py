"""Requests about dead letters: queries and bodies select alike, misspelt filters are refused."""

import json
import uuid
from typing import Any

import pytest
from multidict import MultiDict

from ingest.http.routes.dead_letters import DropQuery, ListQuery, ReplayRequest
from ingest.jobs.dead_letters import LetterFilter, LetterStage, conditions
from shared.service.http import ProblemError
from shared.service.parameters import read_body, read_query
from shared.service.settings import Seconds

JOB = str(uuid.UUID(int=7))
DEAD_LETTER_ID = f"a whole number from 1 to {2**63 - 1}"


def test_a_query_and_a_body_select_the_same_letters() -> None:
    query = {
        "stage": "chunker",
        "code": "c",
        "job_id": JOB,
        "url": "https://e.org/?a=1",
        "since": "2h",
        "ids": "3, 5",
    }
    expected = LetterFilter(
        stage=LetterStage.CHUNKER,
        code="c",
        job_id=JOB,
        url="https://e.org/?a=1",
        since=Seconds(7200),
        ids=(3, 5),
    )
    body = json.dumps({**query, "ids": [3, 5]}).encode()
    assert conditions(read_query(MultiDict(query), ListQuery)) == conditions(expected)
    assert conditions(read_body(body, ReplayRequest)) == conditions(expected)


def test_callbacks_have_their_own_stage() -> None:
    assert read_query(MultiDict(stage="callback"), ListQuery).stage is LetterStage.CALLBACK


def test_flags_and_numbers_are_read_from_a_query() -> None:
    query = read_query(MultiDict(replayed="true", after="12", limit="7"), ListQuery)
    assert (query.replayed, query.after, query.limit) == (True, 12, 7)
    assert query.is_empty
    assert read_query(MultiDict(all="true", dry_run="true"), DropQuery) == DropQuery(
        all=True, dry_run=True
    )


@pytest.mark.parametrize("body", [b"", b" \n", b"{}"])
def test_an_empty_body_replays_every_letter(body: bytes) -> None:
    assert read_body(body, ReplayRequest) == ReplayRequest()


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"stag": "chunker"}, "invalid body: Object contains unknown field `stag`"),
        (
            {"stage": "parser"},
            "invalid value for `stage`: expected one of chunker, embedder, indexer, callback",
        ),
        ({"since": "x"}, f"invalid value for `since`: expected {Seconds.expected}"),
        ({"since": True}, f"invalid value for `since`: expected {Seconds.expected}"),
        ({"dry_run": 1}, "invalid value for `dry_run`: expected true or false"),
        ({"code": "a\0b"}, "invalid value for `code`: expected text without NUL characters"),
        ({"job_id": "7"}, "invalid value for `job_id`: expected a UUID"),
        (
            {"ids": ["1"]},
            f"invalid value for `ids`: expected a list, each element {DEAD_LETTER_ID}",
        ),
        ([], "invalid body: Expected `object`, got `array`"),
    ],
)
def test_a_body_of_the_wrong_shape_is_refused_with_the_reason(body: Any, detail: str) -> None:
    with pytest.raises(ProblemError) as refused:
        read_body(json.dumps(body).encode(), ReplayRequest)
    assert (refused.value.status, refused.value.detail) == (422, detail)


@pytest.mark.parametrize("body", [b"{", b"\xff", b"{} {}", b'{"code": "\\ud800"}'])
def test_a_body_that_is_not_json_is_malformed(body: bytes) -> None:
    with pytest.raises(ProblemError, match="not valid JSON") as refused:
        read_body(body, ReplayRequest)
    assert refused.value.status == 400


def test_a_number_of_seconds_is_a_duration_too() -> None:
    assert read_body(b'{"since": 90}', ReplayRequest).since == 90.0
