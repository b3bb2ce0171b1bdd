"""What requests about dead letters may say, in a query or as JSON. A name that is not known is an error:

a misspelt filter would otherwise mean more letters than were wanted.
"""

import uuid
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from ingest.documents.decoding import UnprocessableBodyError, decode
from ingest.jobs.dead_letters import LetterFilter, LetterStage
from shared.service.settings import Seconds, seconds_of

T = TypeVar("T", bound="LetterRequest")

LetterId = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
_LONGEST = 100 * 365 * 86400.0  # seconds; Postgres' times do not reach back for ever
_Text = Annotated[str, msgspec.Meta(pattern=r"\A[^\x00]*\Z")]  # Postgres takes no NUL


class LetterRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which letters; all that is given must hold."""

    stage: LetterStage | None = None
    code: _Text | None = None
    job_id: uuid.UUID | None = None
    url: _Text | None = None
    since: Seconds | None = None
    ids: tuple[LetterId, ...] | None = None

    @property
    def filter(self) -> LetterFilter:
        return LetterFilter(
            stage=self.stage,
            code=self.code,
            job_id=str(self.job_id) if self.job_id is not None else None,
            url=self.url,
            since=min(self.since, _LONGEST) if self.since is not None else None,
            ids=self.ids,
        )


class ListRequest(LetterRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    replayed: bool = False  # list those that were replayed, too
    after: LetterId | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


class ReplayRequest(LetterRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    dry_run: bool = False


class DropRequest(LetterRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    all: bool = False  # must be said if no filter is given
    replayed: bool = False  # drop those that were replayed, too
    dry_run: bool = False


def from_query(query: Mapping[str, str], kind: type[T]) -> T:
    """Read a query; `ids` are separated by commas. Raises UnprocessableBodyError."""
    fields: dict[str, Any] = dict(query)
    if "ids" in fields:
        fields["ids"] = [text.strip() for text in fields["ids"].split(",") if text.strip()]
    try:
        return msgspec.convert(fields, kind, strict=False, dec_hook=_duration)
    except msgspec.ValidationError as error:
        raise UnprocessableBodyError(f"the query has the wrong shape: {error}") from error


def from_json(body: bytes) -> ReplayRequest:
    """Read the body of a replay; an empty one means every letter.

    Raises MalformedBodyError and UnprocessableBodyError.
    """
    return decode(_replay_decoder, body) if body.strip() else ReplayRequest()


def _duration(kind: type, value: Any) -> Any:
    if kind is Seconds:
        return seconds_of(str(value))
    raise TypeError(f"cannot decode {kind}")


_replay_decoder = msgspec.json.Decoder(ReplayRequest, dec_hook=_duration)
