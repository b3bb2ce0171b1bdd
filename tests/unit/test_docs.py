"""The documentation says what the code does: every setting with its default, every log event with
its fields.
"""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import pytest

from ingest.http.openapi import openapi_document
from shared.service.routes import Route
from shared.service.settings import RETIRED, blocks, known_variables, load
from tests.support.declared import declared_routes, described_routes
from tests.support.documented import Metric, declared_metrics, rows

ROOT = Path(__file__).parents[2]
SERVICES = ("ingest", "chunker", "embedder", "indexer")
PACKAGES = (*SERVICES, "shared", "local", "cli")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
TAKEN = re.compile(r"(\d+), or a free one if it is taken")


HEADING = re.compile(r"^### (?P<method>[A-Z]+) (?P<path>/\S*)$", re.MULTILINE)


class Setting(NamedTuple):
    """One row of docs/settings.md."""

    name: str
    default: str
    services: set[str]


class Event(NamedTuple):
    """One log call in the sources, or one row of docs/logging.md."""

    text: str
    level: str
    fields: set[str]


def documented_settings() -> list[Setting]:
    found = []
    for name, default, _, services, purpose in rows("settings.md", 5):
        assert purpose
        names = set(SERVICES) if services == "all" else set(services.split(", "))
        found.append(Setting(name.strip("`"), default, names))
    return found


def documented_events() -> list[Event]:
    return [
        Event(text.strip("`"), level, set(filter(None, fields.split(", "))))
        for text, level, fields, _ in rows("logging.md", 4)
    ]


def logged_events() -> Iterator[Event]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and (event := event_of(node)):
                    yield event


def event_of(call: ast.Call) -> Event | None:
    """The event of `log.level("text", field=...)`; what `bind` adds and `**fields` are not seen."""
    function = call.func
    if not isinstance(function, ast.Attribute) or function.attr not in LEVELS or not call.args:
        return None
    text = call.args[0]
    if not isinstance(function.value, ast.Name) or function.value.id not in {"log", "bound"}:
        return None
    assert isinstance(text, ast.Constant), f"line {call.lineno}: an event is a fixed text"
    fields = {
        "exception" if word.arg == "exc_info" else word.arg for word in call.keywords if word.arg
    }
    if function.attr == "exception":
        return Event(str(text.value), "error", fields | {"exception"})
    return Event(str(text.value), function.attr, fields)


def blocks_of(service: str) -> set[type]:
    settings: Any = importlib.import_module(f"{service}.settings").Settings
    return {cast("type", field.type) for field in msgspec.structs.fields(settings)}


def names_of(block: type) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(block)}


def test_every_setting_is_documented_once_and_none_besides() -> None:
    names = [setting.name for setting in documented_settings()]
    assert len(set(names)) == len(names)
    assert set(names) == known_variables()


@pytest.mark.parametrize("block", list(blocks()), ids=lambda block: block.__name__)
def test_a_documented_default_is_what_an_empty_environment_gives(block: type) -> None:
    only = msgspec.defstruct("Only", [("block", block)], frozen=True)
    documented = {
        s.name: match[1] for s in documented_settings() if (match := re.match("`(.+?)`", s.default))
    }
    environment = {name: documented[name] for name in names_of(block) if name in documented}
    assert load(only, environment) == load(only, {})


def test_a_setting_without_a_documented_default_has_none() -> None:
    defaults = {
        f.encode_name: f.default for block in blocks() for f in msgspec.structs.fields(block)
    }
    unset = {
        setting.name for setting in documented_settings() if not setting.default.startswith("`")
    }
    assert unset == {name for name, default in defaults.items() if default is None or default == ""}


@pytest.mark.parametrize("service", SERVICES)
def test_the_documented_default_port_is_the_one_that_the_service_takes(service: str) -> None:
    [default] = [
        s.default for s in documented_settings() if s.name == f"WEBHOOK_{service.upper()}_PORT"
    ]
    match = TAKEN.fullmatch(default)
    assert match
    sources = "".join(path.read_text() for path in (ROOT / service).glob("*.py"))
    assert f"Port({match[1]}, " in sources or f"DEFAULT_PORT = {match[1]}" in sources


def test_a_setting_is_read_by_services_that_load_it() -> None:
    loaded = {
        service: {name for block in blocks_of(service) for name in names_of(block)}
        for service in SERVICES
    }
    wrong = [
        (setting.name, service)
        for setting in documented_settings()
        for service in setting.services
        if setting.name not in loaded[service]
    ]
    assert not wrong


def test_every_retired_name_is_documented() -> None:
    page = (ROOT / "docs/settings.md").read_text()
    assert not [name for name in RETIRED if f"`{name}`" not in page]


def test_every_log_event_is_documented_once_and_none_besides() -> None:
    texts = [event.text for event in documented_events()]
    assert len(set(texts)) == len(texts)
    assert set(texts) == {event.text for event in logged_events()}


def test_events_have_the_documented_level_and_fields() -> None:
    documented = {event.text: event for event in documented_events()}
    wrong = [
        event
        for event in logged_events()
        if (found := documented.get(event.text))
        and (event.level != found.level or not event.fields <= found.fields)
    ]
    assert not wrong


def documented_metrics() -> dict[str, Metric]:
    found = {}
    for name, kind, unit, labels, services, meaning in rows("metrics.md", 6):
        assert unit
        assert services
        assert name not in found
        found[name.strip("`")] = Metric(kind, tuple(filter(None, labels.split(", "))), meaning)
    return found


def test_every_metric_is_documented_with_its_type_labels_and_help() -> None:
    assert documented_metrics() == declared_metrics()


def test_metrics_are_named_as_prometheus_wants_it() -> None:
    for name, metric in declared_metrics().items():
        assert name.startswith("millstream_")
        assert name.endswith("_total") == (metric.kind == "counter")
        assert "ms" not in name.split("_")


def test_every_route_is_documented_once_and_none_besides() -> None:
    documented = HEADING.findall((ROOT / "docs/api.md").read_text())
    assert len(set(documented)) == len(documented)
    declared = [(route.method, route.path) for route in declared_routes()]
    assert len(set(declared)) == len(declared)
    assert set(documented) == set(declared)


@pytest.mark.parametrize(
    "route", declared_routes(), ids=lambda route: f"{route.method} {route.path}"
)
def test_the_section_of_a_route_names_its_parameters(route: Route) -> None:
    page = (ROOT / "docs/api.md").read_text()
    start = page.index(f"### {route.method} {route.path}\n")
    chapter = page[page.rindex("\n## ", 0, start) :].partition("\n## ")[2].partition("\n## ")[0]
    names = {
        field.encode_name
        for kind in (route.query, route.body)
        if kind
        for field in msgspec.structs.fields(kind)
    }
    assert not {name for name in names if name not in chapter}


def test_every_schema_that_the_openapi_document_names_is_in_it() -> None:
    document = openapi_document(described_routes())
    named = set(re.findall(r"#/components/schemas/(\w+)", msgspec.json.encode(document).decode()))
    assert named <= set(document["components"]["schemas"])
    assert {"JobPage", "Problem", "StreamStates"} <= named


PAGES = [path for pattern in ("*.md", "docs/**/*.md", "cli/**/*.md", "deploy/*.md", "examples/*.md")
         for path in ROOT.glob(pattern)]  # fmt: skip
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)]*))?\)")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_between_pages_lead_to_a_file_and_a_heading() -> None:
    broken = []
    for page in PAGES:
        for name, anchor in LINK.findall(page.read_text()):
            if "://" in name or name.startswith("mailto:"):
                continue
            target = page.parent / name if name else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append((page.name, f"{name}#{anchor}"))
    assert not broken


def test_every_file_that_a_page_names_is_there() -> None:
    invented = {"shared/jobs/sql/NNNN_name.sql", "my_chunker.py", "test_my_chunker.py"}
    known = {
        path.name
        for package in (*PACKAGES, "tests", "bench")
        for path in (ROOT / package).rglob("*.*")
    }
    missing = [
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"`([\w/]+\.(?:py|lua|sql))`", page.read_text())
        if name not in invented
        and not (ROOT / name).exists()
        and ("/" in name.removeprefix("lua/") or Path(name).name not in known)
    ]
    assert not missing


def test_every_page_is_reached_from_the_index() -> None:
    reached: set[Path] = set()
    left = [ROOT / "README.md"]
    while left:
        page = left.pop()
        if page in reached:
            continue
        reached.add(page)
        links = [
            (page.parent / name).resolve()
            for name, _ in LINK.findall(page.read_text())
            if name.endswith(".md")
        ]
        left += links
    decisions = ROOT / "docs/decisions"
    assert {
        page.resolve() for page in ROOT.glob("docs/**/*.md") if page.parent != decisions
    } <= reached


RUNBOOKS = sorted(
    path for path in (ROOT / "docs/runbooks").glob("*.md") if path.name != "README.md"
)


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_a_runbook_has_its_four_parts_and_is_listed(page: Path) -> None:
    parts = re.findall("^## (.+)$", page.read_text(), re.MULTILINE)
    assert parts == ["How it shows", "How to tell", "What to do", "How to know it is over"]
    assert f"({page.name})" in (page.parent / "README.md").read_text()
