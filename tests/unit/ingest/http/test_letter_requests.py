"""Requests about dead letters: every filter, and no misspelt one."""

import json
import uuid
from typing import Any

import pytest

from ingest.documents.decoding import MalformedBodyError, UnprocessableBodyError
from ingest.http.letter_requests import DropRequest, ListRequest, ReplayRequest, from_json, from_query
from ingest.jobs.dead_letters import LetterFilter
from shared.pipeline.stages import StageName

JOB = str(uuid.UUID(int=7))


def test_a_query_and_a_body_mean_the_same_filter() -> None:
    query = {"stage": "chunker", "code": "c", "job_id": JOB, "url": "https://e.org/?a=1", "since": "2h", "ids": "3, 5"}
    expected = LetterFilter(
        stage=StageName.CHUNKER, code="c", job_id=JOB, url="https://e.org/?a=1", since=7200.0, ids=(3, 5)
    )
    assert from_query(query, ListRequest).filter == expected
    assert from_json(json.dumps({**query, "ids": [3, 5]}).encode()).filter == expected


def test_callbacks_have_a_stage_of_their_own() -> None:
    assert from_query({"stage": "callback"}, ListRequest).filter == LetterFilter(stage="callback")


def test_flags_and_numbers_are_read_from_a_query() -> None:
    request = from_query({"replayed": "true", "after": "12", "limit": "7"}, ListRequest)
    assert (request.replayed, request.after, request.limit) == (True, 12, 7)
    assert request.filter.is_empty
    assert from_query({"all": "true", "dry_run": "true"}, DropRequest) == DropRequest(all=True, dry_run=True)


@pytest.mark.parametrize("body", [b"", b" \n", b"{}"])
def test_an_empty_body_replays_every_letter(body: bytes) -> None:
    assert from_json(body) == ReplayRequest()


@pytest.mark.parametrize(
    "query",
    [
        {"stag": "chunker"},
        {"stage": "parser"},
        {"job_id": "7"},
        {"since": "yesterday"},
        {"ids": "1,x"},
        {"ids": "0"},
        {"ids": str(2**63)},
        {"url": "https://example.com/\x00"},
        {"dry_run": "maybe"},
        {"after": "1"},
    ],
)
def test_what_is_not_known_or_not_possible_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(UnprocessableBodyError):
        from_query(query, DropRequest)


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "many"])
def test_a_page_has_1_to_1000_letters(limit: str) -> None:
    with pytest.raises(UnprocessableBodyError):
        from_query({"limit": limit}, ListRequest)


@pytest.mark.parametrize("body", [{"stag": "chunker"}, {"ids": ["1"]}, {"since": "x"}, {"dry_run": 1}, [], "all"])
def test_a_body_of_the_wrong_shape_is_refused(body: Any) -> None:
    with pytest.raises(UnprocessableBodyError):
        from_json(json.dumps(body).encode())


def test_a_body_that_is_no_json_is_refused() -> None:
    with pytest.raises(MalformedBodyError):
        from_json(b"{")


@pytest.mark.parametrize("since", ["9" * 400, "99999999999999d"])
def test_a_time_before_all_times_means_all(since: str) -> None:
    seconds = from_query({"since": since}, ListRequest).filter.since
    assert seconds is not None
    assert seconds < 1e10
