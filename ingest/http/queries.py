"""Query parameters to values; a bad one is 422 with its name and what it may be."""

import math

from aiohttp import web

from ingest.documents.canonical import canonical_url
from ingest.documents.override import parse_callback, parse_collection, parse_lane
from shared.jobs.model import JobStatus
from shared.pipeline.lanes import Lane
from shared.service.errors import RejectedError
from shared.service.http import ProblemError
from shared.service.settings import seconds_of

_MAX_HOURS = 24 * 366


def integer_query(request: web.Request, name: str, *, default: int, highest: int, lowest: int = 0) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isdecimal() or not text.isascii() or not lowest <= int(text) <= highest:
        raise unprocessable(f"{name} must be a number from {lowest} to {highest}")
    return int(text)


def duration_query(request: web.Request, name: str) -> float | None:
    """Seconds of a duration such as `30`, `10m` or `250ms`; None if it is not given."""
    text = request.query.get(name)
    if text is None:
        return None
    try:
        return seconds_of(text)
    except ValueError as error:
        raise unprocessable(f"{name}: {error}") from error


def hours_query(request: web.Request, name: str, *, default: float) -> float:
    """Hours, also parts of one."""
    text = request.query.get(name)
    try:
        hours = default if text is None else float(text)
    except ValueError:
        hours = math.nan
    if not 0 < hours <= _MAX_HOURS:
        raise unprocessable(f"{name} must be a number above 0, at most {_MAX_HOURS}")
    return hours


def boolean_query(request: web.Request, name: str) -> bool | None:
    text = request.query.get(name)
    if text not in {None, "true", "false"}:
        raise unprocessable(f"{name} must be true or false")
    return None if text is None else text == "true"


def status_query(request: web.Request, name: str) -> JobStatus | None:
    text = request.query.get(name)
    if text is None:
        return None
    try:
        return JobStatus(text)
    except ValueError as error:
        raise unprocessable(f"{name} must be one of {', '.join(JobStatus)}") from error


def lane_query(request: web.Request) -> Lane | None:
    try:
        return parse_lane(request.query.get("lane"))
    except RejectedError as error:
        raise unprocessable(error.reason) from error


def collection_query(request: web.Request) -> str | None:
    try:
        return parse_collection(request.query.get("collection"))
    except RejectedError as error:
        raise unprocessable(error.reason) from error


def callback_query(request: web.Request) -> str | None:
    try:
        return parse_callback(request.query.get("callback_url"))
    except RejectedError as error:
        raise unprocessable(error.reason) from error


def required_collection(name: str | None) -> str:
    """A collection that must be named: what is done to it is too much to be meant for whichever is the default."""
    try:
        collection = parse_collection(name)
    except RejectedError as error:
        raise unprocessable(error.reason) from error
    if collection is None:
        raise unprocessable("say which collection")
    return collection


def url_query(request: web.Request) -> tuple[str, str]:
    """The query parameter `url` as it was sent, and in canonical form."""
    url = request.query.get("url", "")
    try:
        return url, canonical_url(url)
    except RejectedError as error:
        raise unprocessable(f"url: {error.reason}") from error


def unprocessable(detail: str) -> ProblemError:
    return ProblemError(422, "Unprocessable Content", detail)
