"""`millstream search`: asks the index."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.text import Text

from cli.client import ApiClient
from cli.output import Json, console, emit

# Pages may bring what moves a terminal's cursor or renames its window. One character for one: highlights stay right.
_UNPRINTABLE = dict.fromkeys((*range(32), *range(127, 160)), "�") | {ord("\n"): " ", ord("\t"): " "}


def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    mode: Annotated[str, typer.Option(help="hybrid, semantic or keyword.")] = "hybrid",
    limit: Annotated[int, typer.Option(min=1, max=100)] = 5,
    offset: Annotated[int, typer.Option(min=0, help="Results to skip; with --limit at most 200.")] = 0,
    collapse: Annotated[str, typer.Option(help="document: one hit per document; chunk: all.")] = "document",
    collection: Annotated[str | None, typer.Option(help="The collection to search.")] = None,
    domain: Annotated[str | None, typer.Option(help="Only pages of this domain.")] = None,
    language: Annotated[str | None, typer.Option(help="Only pages in this language.")] = None,
    country: Annotated[str | None, typer.Option(help="Only pages for this country.")] = None,
    is_mobile: Annotated[bool | None, typer.Option("--mobile/--desktop", help="Only pages scraped so.")] = None,
    url_prefix: Annotated[str | None, typer.Option(help="Only pages whose URL begins so.")] = None,
    crawl_id: Annotated[str | None, typer.Option(help="Only pages that this crawl changed last.")] = None,
    indexed_after: Annotated[str | None, typer.Option(help="Only pages indexed later, as 2026-01-31T12:00.")] = None,
    as_json: Json = False,
) -> None:
    """Search what is indexed."""
    request: dict[str, Any] = {"query": query, "mode": mode, "limit": limit, "offset": offset, "collapse": collapse}
    if collection is not None:
        request["collection"] = collection
    filters = {
        "domain": domain, "language": language, "country": country, "is_mobile": is_mobile, "url_prefix": url_prefix,
        "crawl_id": crawl_id, "indexed_after": indexed_after,
    }  # fmt: skip
    request["filters"] = {name: value for name, value in filters.items() if value is not None}
    answer = ApiClient.from_environment().post("/api/search", request)
    emit(answer, as_json=as_json, show=lambda: show_results(answer))


def show_results(answer: dict[str, Any]) -> None:
    """Print hits for a person: title, url and the text around the first highlight."""
    for rank, result in enumerate(answer["results"], 1):
        path = " > ".join([result["title"] or result["url"], *result["headings"]])
        console.print(
            Text.assemble((f"{rank}. ", "dim"), (_printable(path), "bold"), (f"  {result['score']:.4f}", "dim"))
        )
        console.print(Text(f"   {_printable(result['url'])}", style="cyan"))
        console.print(excerpt(result["text"], result["highlights"]))
    note = ", degraded" if answer["degraded"] else ""
    console.print(f"{answer['total']} hits in {answer['took_ms']:.0f} ms{note}", style="dim")


def excerpt(text: str, highlights: Sequence[tuple[int, int]], width: int = 240) -> Text:
    """The text around the first highlight on one line, its highlights marked; they count characters of `text`."""
    start = max(0, highlights[0][0] - 60) if highlights else 0
    excerpt = Text(_printable(text[start : start + width]))
    for begin, end in highlights:
        if begin >= start and end <= start + width:
            excerpt.stylize("bold yellow", begin - start, end - start)
    return Text("   ") + excerpt


def _printable(text: str) -> str:
    return text.translate(_UNPRINTABLE)
