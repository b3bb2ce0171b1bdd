"""Query parameters to values; a bad one is 422 with its name and what it may be."""

from aiohttp import web

from ingest.override import parse_collection, parse_lane
from shared.errors import RejectedError
from shared.http import ProblemError
from shared.jobs.model import JobStatus
from shared.messages import Lane
from shared.settings import seconds_of


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


def unprocessable(detail: str) -> ProblemError:
    return ProblemError(422, "Unprocessable Content", detail)
