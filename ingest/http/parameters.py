"""The types of parameters that several routes of ingest share."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import msgspec

from ingest.documents.canonical import canonical_url
from ingest.documents.override import parse_callback
from shared.pipeline.lanes import Lane
from shared.service.errors import RejectedError
from shared.service.parameters import CollectionName


class PageUrl(str):
    """The URL of a document, as it was sent."""

    __slots__ = ()
    expected: ClassVar[str] = "an http, https or file URL"
    schema: ClassVar[Mapping[str, Any]] = {"type": "string", "minLength": 1}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError for text that has no canonical form."""
        try:
            canonical_url(text)
        except RejectedError as error:
            raise ValueError(error.reason) from error
        return cls(text)


class CallbackUrl(str):
    """The URL of a completion webhook. Whether its address may be called is decided elsewhere."""

    __slots__ = ()
    expected: ClassVar[str] = "an http or https URL"
    schema: ClassVar[Mapping[str, Any]] = PageUrl.schema

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError for anything but an http or https URL."""
        try:
            url = parse_callback(text)
        except RejectedError as error:
            raise ValueError(
                error.reason.removeprefix("invalid value for `callback_url`: ")
            ) from error
        if url is None:
            raise ValueError(f"expected {cls.expected}")
        return cls(url)


class PlacementQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The lane and the collection of documents that do not choose their own."""

    lane: Lane | None = None
    collection: CollectionName | None = None


class CollectionQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A collection that must be named, because the default one is rarely meant by what is done to
    it.
    """

    collection: CollectionName
