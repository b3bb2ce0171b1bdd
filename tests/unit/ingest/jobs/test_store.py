"""The cursor of a list of jobs."""

import datetime as dt

import pytest

from ingest.jobs.store import JobCursor

JOB = "00000000-0000-0000-0000-000000000007"


def test_a_cursor_names_the_last_job_of_a_page() -> None:
    cursor = JobCursor.parse(f"2026-01-02T03:04:05.600000+00:00_{JOB}")
    assert cursor.key == (dt.datetime(2026, 1, 2, 3, 4, 5, 600_000, dt.UTC), JOB)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "_",
        "2026-01-01",
        f"_{JOB}",
        f"yesterday_{JOB}",
        f"2026-01-01_{JOB}0",
        f"0001-01-01T00:00+14:00_{JOB}",
    ],
)
def test_an_invalid_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="`next` of the previous page"):
        JobCursor.parse(text)
