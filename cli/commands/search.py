"""`millstream search`: asks the index, and prints hits with their highlights."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.client import ApiClient
from cli.output import Json, console, emit

if TYPE_CHECKING:
    from rich.text import Text

# Pages may contain what moves a terminal's cursor or renames its window. Each such character is
# replaced by one other, so that highlights keep their positions.
_UNPRINTABLE = dict.fromkeys((*range(32), *range(127, 160)), "\N{REPLACEMENT CHARACTER}") | {
    ord("\n"): " ",
    ord("\t"): " ",
}
_EXCERPT_CHARACTERS = 240
_BEFORE_HIGHLIGHT = 60  # characters of context


Query = Annotated[str, typer.Argument(help="Words or a question.")]
Mode = Annotated[
    str, typer.Option(help="semantic (by meaning), keyword (by words), or hybrid (both, fused).")
]
Limit = Annotated[int, typer.Option(min=1, max=100, help="How many results to show.")]
Offset = Annotated[int, typer.Option(min=0, help="Results to skip; with --limit at most 200.")]
Collapse = Annotated[
    str, typer.Option(help="document: the best chunk of each page; chunk: every chunk.")
]
Collection = Annotated[
    str | None, typer.Option(help="Search this collection instead of the default one.")
]
Domain = Annotated[str | None, typer.Option(help="Only pages of this domain.")]
Language = Annotated[str | None, typer.Option(help="Only pages in this language, for example en.")]
Country = Annotated[str | None, typer.Option(help="Only pages for this country.")]
IsMobile = Annotated[
    bool | None,
    typer.Option(
        "--mobile/--desktop", help="Only pages that were scraped as a phone, or as a desktop."
    ),
]
UrlPrefix = Annotated[str | None, typer.Option(help="Only pages whose URL begins with this.")]
CrawlId = Annotated[
    str | None, typer.Option(help="Only pages that this crawl was the last to change.")
]
IndexedAfter = Annotated[
    str | None, typer.Option(help="Only pages indexed later, for example 2026-01-31T12:00.")
]


def search(
    query: Query,
    mode: Mode = "hybrid",
    limit: Limit = 5,
    offset: Offset = 0,
    collapse: Collapse = "document",
    collection: Collection = None,
    domain: Domain = None,
    language: Language = None,
    country: Country = None,
    is_mobile: IsMobile = None,
    url_prefix: UrlPrefix = None,
    crawl_id: CrawlId = None,
    indexed_after: IndexedAfter = None,
    as_json: Json = False,
) -> None:
    """Search the index.

    Prints title, headings, score, URL and the text around the first match. "degraded" after the
    number of hits means that a part of the search did not answer, for example TEI.
    """
    request: dict[str, Any] = {
        "query": query,
        "mode": mode,
        "limit": limit,
        "offset": offset,
        "collapse": collapse,
    }
    if collection is not None:
        request["collection"] = collection
    filters = {
        "domain": domain,
        "language": language,
        "country": country,
        "is_mobile": is_mobile,
        "url_prefix": url_prefix,
        "crawl_id": crawl_id,
        "indexed_after": indexed_after,
    }
    request["filters"] = {name: value for name, value in filters.items() if value is not None}
    answer = ApiClient.from_environment().post("/api/search", request)
    emit(answer, as_json=as_json, show=lambda: show_results(answer))


def show_results(answer: dict[str, Any]) -> None:
    """Print hits: title, URL and the text around the first highlight."""
    from rich.text import Text

    for rank, result in enumerate(answer["results"], 1):
        path = " > ".join([result["title"] or result["url"], *result["headings"]])
        score = f"  {result['score']:.4f}"
        heading = Text.assemble((f"{rank}. ", "dim"), (_printable(path), "bold"), (score, "dim"))
        console().print(heading)
        console().print(Text(f"   {_printable(result['url'])}", style="cyan"))
        console().print(excerpt(result["text"], result["highlights"]))
    note = ", degraded" if answer["degraded"] else ""
    console().print(f"{answer['total']} hits in {answer['took_ms']:.0f} ms{note}", style="dim")


def excerpt(
    text: str, highlights: Sequence[tuple[int, int]], width: int = _EXCERPT_CHARACTERS
) -> "Text":
    """The text around the first highlight on one line, with its highlights marked.

    Highlights are positions in characters of `text`.
    """
    from rich.text import Text

    start = max(0, highlights[0][0] - _BEFORE_HIGHLIGHT) if highlights else 0
    shown = Text(_printable(text[start : start + width]))
    for begin, end in highlights:
        if begin >= start and end <= start + width:
            shown.stylize("bold yellow", begin - start, end - start)
    return Text("   ") + shown


def _printable(text: str) -> str:
    return text.translate(_UNPRINTABLE)
