"""Seeded traffic: small pages, some of which change, change back or are deleted.

The same seed gives the same requests.
"""

import random
from collections.abc import Iterator, Sequence

import msgspec

WORDS = (
    *(
        "stream",
        "entry",
        "delivery",
        "consumer",
        "group",
        "pending",
        "claim",
        "lease",
        "lag",
        "attempt",
        "ledger",
    ),
    *(
        "hand",
        "over",
        "drain",
        "stage",
        "lane",
        "batch",
        "job",
        "item",
        "document",
        "chunk",
        "embedding",
        "point",
    ),
    *("collection", "fusion", "river", "stone", "heron", "walrus", "granite", "harbour", "lantern"),
)

_DELETES = 0.05
_CHANGES = 0.2
_REVISIONS = 2  # a page that changes twice is back at its first text
_BATCH = 8


class Page(msgspec.Struct, frozen=True):
    """A page as it is sent: 1 to 4 chunks of markdown."""

    url: str
    markdown: str


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What is special about a scenario's documents."""

    lane: str | None = None  # None: the lane that ingest gives them
    ends: bool = False  # with the scenario's documents, though the fault may take longer
    poison: tuple[
        str, ...
    ] = ()  # texts of the documents that must end as dead letters, taken in turns


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request to ingest: pages to index in this order, or one URL to delete."""

    key: str  # repeated with a repeat, so that it is accepted once
    pages: tuple[Page, ...] = ()
    delete: str | None = None
    poison: bool = False  # its pages must end as dead letters
    lane: str | None = None  # None: that of the scenario's traffic

    @property
    def urls(self) -> list[str]:
        return [self.delete] if self.delete else [page.url for page in self.pages]


def page(site: str, number: int, revision: int) -> Page:
    """The text of a page depends on these three alone."""
    url = f"https://{site}/{number}"
    words = random.Random(f"{url} {revision}")
    sections = [
        f"## Part {part} of {number}\n\n"
        + " ".join(words.choices(WORDS, k=words.randint(40, 120)))
        + "."
        for part in range(words.randint(1, 4))
    ]
    return Page(url, f"# Page {number}, revision {revision}\n\n" + "\n\n".join(sections) + "\n")


def requests(site: str, documents: int, seed: int) -> Iterator[Request]:
    """Requests with `documents` pages and deletes in all."""
    draw = random.Random(seed)
    revisions: list[int] = []
    left, number = documents, 0
    while left > 0:
        number += 1
        key = f"{site}-{number}"
        if revisions and draw.random() < _DELETES * _BATCH:
            yield Request(key=key, delete=f"https://{site}/{draw.randrange(len(revisions))}")
            left -= 1
            continue
        size = min(left, draw.randint(1, _BATCH))
        yield Request(key=key, pages=tuple(_next_page(site, revisions, draw) for _ in range(size)))
        left -= size


def poisonous(site: str, traffic: Traffic, documents: int) -> Iterator[Request]:
    """So many documents that must end as dead letters, each in a request of its own."""
    for number in range(documents):
        text = traffic.poison[number % len(traffic.poison)]
        bad = Page(f"https://{site}/poison-{number}", f"# Poison {number}\n\n{text}\n")
        yield Request(key=f"{site}-poison-{number}", pages=(bad,), poison=True)


def mixed(requests: Sequence[Request], poison: Sequence[Request], seed: int) -> list[Request]:
    """`requests` in their order with `poison` at random places in between."""
    draw = random.Random(seed)
    places = sorted(draw.randint(0, len(requests)) for _ in poison)
    mixture = list(requests)
    for place, request in zip(reversed(places), reversed(poison), strict=True):
        mixture.insert(place, request)
    return mixture


def _next_page(site: str, revisions: list[int], draw: random.Random) -> Page:
    if revisions and draw.random() < _CHANGES:
        number = draw.randrange(len(revisions))
        revisions[number] = (revisions[number] + 1) % _REVISIONS
    else:
        number = len(revisions)
        revisions.append(0)
    return page(site, number, revisions[number])
