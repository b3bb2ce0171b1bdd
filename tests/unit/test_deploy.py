"""deploy/, and the questions of docs/metrics.md: manifests, alerts and the dashboard name only what
exists.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.pipeline.lanes import Lane
from shared.pipeline.stages import StageName
from shared.service.settings import RuntimeSettings, known_variables
from tests.support.documented import code_blocks, declared_metrics
from tests.unit.test_compose import PORTS, SERVICES

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
SERIES = re.compile(r"millstream_\w+")
SELECTED = re.compile(r"(millstream_\w+)\{([^}]*)\}")
GROUPED = re.compile(r"(?:by|on) \(([^)]*)\)")
PROMETHEUS_LABELS = {"instance", "le"}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((KUBERNETES / name).read_text()))


def deployment(service: str) -> dict[str, Any]:
    [found] = [each for each in documents(f"{service}.yaml") if each["kind"] == "Deployment"]
    return found


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> list[dict[str, Any]]:
    return list(json.loads((DEPLOY / "grafana" / "millstream.json").read_text())["panels"])


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in alerts())
    yield from (target["expr"] for panel in dashboard() for target in panel["targets"])
    [questions] = code_blocks("metrics.md", "promql")
    whole = questions.replace("\n ", " ")  # an indented line continues the one before it
    yield from (line for line in whole.splitlines() if not line.startswith("#"))


def series() -> dict[str, set[str]]:
    """The labels of every series that Prometheus gets of us."""
    found: dict[str, set[str]] = {}
    for name, metric in declared_metrics().items():
        suffixes = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        found |= {name + suffix: set(metric.labels) for suffix in suffixes}
    return found


@pytest.mark.parametrize("expression", list(expressions()))
def test_an_expression_asks_for_series_and_labels_that_exist(expression: str) -> None:
    known = series()
    asked = set(SERIES.findall(expression))
    assert asked
    assert asked <= set(known)
    for name, selectors in SELECTED.findall(expression):
        assert {re.split("=~|=", part.strip())[0] for part in selectors.split(",")} <= known[name]
    labels = {label.strip() for group in GROUPED.findall(expression) for label in group.split(",")}
    assert labels <= PROMETHEUS_LABELS | set().union(*(known[name] for name in asked))
    assert expression.count("(") == expression.count(")")


def test_every_alert_says_how_bad_it_is_what_it_is_and_what_to_do() -> None:
    rules = alerts()
    assert len({rule["alert"] for rule in rules}) == len(rules) > 5
    for rule in rules:
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(rule["annotations"]) == {"summary", "action"}
        named = re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))
        assert all(re.search(rf"by \([^)]*\b{label}\b", rule["expr"]) for label in named)


def test_panels_do_not_overlap() -> None:
    taken = [
        (x, y)
        for panel in dashboard()
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24


def test_settings_are_settings_and_ports_are_those_that_services_listen_on() -> None:
    lines = (KUBERNETES / "settings.env").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines)
    assert set(settings) <= known_variables()
    for service in SERVICES:
        [container] = deployment(service)["spec"]["template"]["spec"]["containers"]
        assert container["command"] == ["python", "-m", service]
        assert container["ports"] == [{"name": "http", "containerPort": PORTS[service]}]
        assert settings[f"WEBHOOK_{service.upper()}_PORT"] == str(PORTS[service])
    assert settings["WEBHOOK_SEARCH_URL"] == f"http://indexer:{PORTS['indexer']}"


def test_every_file_is_named_and_every_name_is_there() -> None:
    [kustomization] = documents("kustomization.yaml")
    named = {
        *kustomization["resources"],
        *(patch["path"] for patch in kustomization["patches"]),
        "kustomization.yaml",
    }
    assert named == {path.name for path in KUBERNETES.glob("*.yaml")}


def test_a_service_may_drain_before_it_is_killed_and_its_parts_fit_together() -> None:
    [common] = documents("service.yaml")
    pod = common["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= RuntimeSettings().drain_timeout + 5
    assert [container["name"] for container in pod["containers"]] == ["service"]
    for service in SERVICES:
        found = deployment(service)
        assert (
            found["metadata"]["name"] == found["spec"]["selector"]["matchLabels"]["app"] == service
        )
        assert found["spec"]["template"]["metadata"]["labels"]["app"] == service
        assert [
            container["name"] for container in found["spec"]["template"]["spec"]["containers"]
        ] == ["service"]


def test_every_stage_is_scaled_by_its_own_streams() -> None:
    scaled = {each["metadata"]["name"]: each["spec"] for each in documents("scaling.yaml")}
    assert set(scaled) == set(StageName)
    for stage in StageName:
        assert scaled[stage]["scaleTargetRef"] == {"name": stage}
        assert (
            "replicas" not in deployment(stage)["spec"]
        )  # or every apply would undo what KEDA did
        metadata = [trigger["metadata"] for trigger in scaled[stage]["triggers"]]
        assert [each["stream"] for each in metadata] == [stage.stream(lane) for lane in Lane]
        assert all("consumerGroup" not in each for each in metadata)  # KEDA would ignore the length
