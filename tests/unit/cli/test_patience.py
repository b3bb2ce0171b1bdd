"""Which requests are repeated while ingest is unavailable, and for how long."""

import pytest

from cli.failures import ApiError, Exit
from cli.patience import LIMIT_S, Patience

DISCONNECTED = ApiError("Server disconnected")
REFUSED = ApiError("Connection refused", was_connected=False)
BUSY = ApiError("Service Unavailable", 503)


class Ingest:
    """Answers with these errors in turn and then with "answer"; time passes only while asleep."""

    def __init__(self, *errors: ApiError) -> None:
        self.errors = list(errors)
        self.requests = 0
        self.told: list[str] = []
        self.seconds = 0.0
        self.patience = Patience(self.told.append, sleep=self.sleep, clock=lambda: self.seconds)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def send(self) -> str:
        self.requests += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"

    def ask(self) -> str:
        return self.patience.repeat(self.send)


@pytest.mark.parametrize("error", [DISCONNECTED, BUSY, ApiError("Bad Gateway", 502)])
def test_a_request_is_repeated_until_it_is_answered(error: ApiError) -> None:
    ingest = Ingest(error, REFUSED, error)
    assert ingest.ask() == "answer"
    assert ingest.requests == 4
    assert ingest.told == [f"{error}\nRetrying for up to 120 s.", "Ingest answers again after 2 s."]


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500])
def test_a_refusal_is_not_repeated(status: int) -> None:
    ingest = Ingest(ApiError("no", status))
    with pytest.raises(ApiError, match="no"):
        ingest.ask()
    assert (ingest.requests, ingest.told) == (1, [])


def test_an_ingest_that_never_answered_is_not_waited_for() -> None:
    ingest = Ingest(REFUSED)
    with pytest.raises(ApiError, match="refused"):
        ingest.ask()
    assert ingest.requests == 1


def test_an_ingest_that_answered_before_is_waited_for() -> None:
    ingest = Ingest()
    ingest.ask()
    ingest.errors = [REFUSED, REFUSED]
    assert ingest.ask() == "answer"


def test_a_refusal_ends_the_repetition() -> None:
    ingest = Ingest(DISCONNECTED, ApiError("Unauthorized", 401))
    with pytest.raises(ApiError, match="Unauthorized"):
        ingest.ask()


def test_after_two_minutes_the_last_error_is_raised() -> None:
    ingest = Ingest(DISCONNECTED, *[REFUSED] * 1000)
    with pytest.raises(ApiError, match="refused"):
        ingest.ask()
    assert LIMIT_S - 5 < ingest.seconds <= LIMIT_S
    assert ingest.requests < 50


@pytest.mark.parametrize(
    ("error", "status"), [(REFUSED, Exit.UNREACHABLE), (BUSY, Exit.REFUSED)], ids=["none", "503"]
)
def test_the_exit_status_says_whether_ingest_answered(error: ApiError, status: Exit) -> None:
    assert error.exit_status is status
