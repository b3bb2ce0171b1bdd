"""compose.yaml and the Dockerfile, as far as they can be judged without a Docker engine."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from shared.service.settings import PREFIX, RuntimeSettings, known_variables
from tests.support.documented import rows

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "tests/data/compose/compose-spec.json"
STAGES = ["chunker", "embedder", "indexer"]
SERVICES = ["ingest", *STAGES]
PORTS = {"ingest": 50108, "chunker": 50109, "embedder": 50110, "indexer": 50111}
PROCESSES = [*SERVICES, "search"]  # run by our image until they are stopped
PINNED = re.compile(r"[\w./-]+:v?(cpu-)?\d+\.\d+(\.\d+)?")
SECRETS = [
    "POSTGRES_PASSWORD", "REDIS_PASSWORD",
    "WEBHOOK_API_SECRET", "WEBHOOK_QDRANT_API_KEY", "WEBHOOK_SECRET"
]  # fmt: skip
EXAMPLE = re.compile(r"#?([A-Z][A-Z0-9_]*)=(.*)")  # a line of .env.example
# What makes no sense in a container that others should trust.
NOT_OFFERED = {"WEBHOOK_TEST_MODE", "WEBHOOK_FAILPOINT"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "compose.yaml").read_text()))


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return dict(compose["services"])


@pytest.fixture(scope="module")
def dockerfile() -> list[str]:
    """The instructions, each on one line."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def variables(service: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in service["environment"].items() if name in known_variables()
    }


def with_defaults(text: str) -> str:
    """Interpolate `${NAME:-default}` as compose does when nothing is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


@pytest.mark.parametrize("name", ["compose.yaml", "deploy/compose.gpu.yaml"])
def test_the_file_follows_the_compose_specification(name: str) -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load((ROOT / name).read_text()))


def test_the_file_for_a_gpu_changes_tei_alone(services: dict[str, dict[str, Any]]) -> None:
    [(name, tei)] = yaml.safe_load((ROOT / "deploy/compose.gpu.yaml").read_text())[
        "services"
    ].items()
    assert name == "tei"
    assert set(tei) == {"image", "deploy"}
    assert (
        with_defaults(tei["image"]).partition(":")[0]
        == with_defaults(services["tei"]["image"]).partition(":")[0]
    )


def test_every_webhook_variable_is_a_setting(services: dict[str, dict[str, Any]]) -> None:
    used = {
        name
        for service in services.values()
        for name in service.get("environment", {})
        if name.startswith(PREFIX)
    }
    assert used
    assert used <= known_variables()


def test_every_setting_can_be_set(services: dict[str, dict[str, Any]]) -> None:
    used = {name for name in PROCESSES for name in variables(services[name])}
    assert known_variables() - NOT_OFFERED == used


def test_every_long_running_service_has_a_health_check(services: dict[str, dict[str, Any]]) -> None:
    without = {
        name for name, service in services.items() if not service.get("healthcheck", {}).get("test")
    }
    assert without == {"migrate"}


@pytest.mark.parametrize("name", PROCESSES)
def test_a_service_is_probed_on_the_port_that_it_is_given(
    services: dict[str, dict[str, Any]], name: str
) -> None:
    setting = "indexer" if name == "search" else name
    environment = services[name]["environment"]
    assert environment[f"WEBHOOK_{setting.upper()}_PORT"] == PORTS[setting]
    assert environment["WEBHOOK_HOST"] == "0.0.0.0"
    command, flag, source = services[name]["healthcheck"]["test"][1:]
    assert (command, flag) == ("python", "-c")
    compile(source, "health check", "exec")
    assert f"http://127.0.0.1:{PORTS[setting]}/readyz" in source


@pytest.mark.parametrize("name", PROCESSES)
def test_a_service_starts_after_the_migration_and_its_servers(
    services: dict[str, dict[str, Any]], name: str
) -> None:
    conditions = {other: how["condition"] for other, how in services[name]["depends_on"].items()}
    assert conditions.pop("migrate") == "service_completed_successfully"
    assert set(conditions.values()) == {"service_healthy"}
    extra = {"embedder": {"tei"}, "indexer": {"qdrant"}, "search": {"qdrant"}}.get(name, set())
    assert set(conditions) == {"redis", "postgres"} | extra


def test_searches_go_to_the_search_service(services: dict[str, dict[str, Any]]) -> None:
    assert services["search"]["command"] == ["python", "-m", "indexer.search_api"]
    assert (
        services["ingest"]["environment"]["WEBHOOK_SEARCH_URL"]
        == f"http://search:{PORTS['indexer']}"
    )


def test_the_migration_runs_once_and_waits_for_postgres(
    services: dict[str, dict[str, Any]],
) -> None:
    migrate = services["migrate"]
    assert migrate["command"] == ["millstream", "migrate"]
    assert migrate["restart"] == "no"
    assert migrate["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_only_the_proxy_is_reached_from_other_hosts(
    services: dict[str, dict[str, Any]],
) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert {name: [with_defaults(port) for port in ports] for name, ports in published.items()} == {
        "ingest": ["127.0.0.1:50108:50108"],
        "redis": ["127.0.0.1:50104:6379"],
        "proxy": ["80:80", "443:443"],
    }


def test_the_proxy_is_started_on_demand_and_passes_the_api_and_the_page(
    services: dict[str, dict[str, Any]],
) -> None:
    assert {name: each["profiles"] for name, each in services.items() if "profiles" in each} == {
        "proxy": ["proxy"]
    }
    assert "./deploy/Caddyfile:/etc/caddy/Caddyfile:ro" in services["proxy"]["volumes"]
    caddyfile = (ROOT / "deploy/Caddyfile").read_text()
    [public] = re.findall(r"^\s*@public path (.*)$", caddyfile, re.MULTILINE)
    assert set(public.split()) == {"/", "/static/*", "/session", "/api/*"}
    assert f"reverse_proxy ingest:{PORTS['ingest']}" in caddyfile


def test_any_stage_can_be_scaled(services: dict[str, dict[str, Any]]) -> None:
    fixed = {"container_name", "hostname", "ports", "network_mode"}
    assert not {name for name in [*STAGES, "search"] if fixed & services[name].keys()}


def test_images_are_pinned_to_a_version(services: dict[str, dict[str, Any]]) -> None:
    images = {with_defaults(service["image"]) for service in services.values()}
    assert not [image for image in images if not PINNED.fullmatch(image)]


def test_the_services_share_one_unprivileged_image(services: dict[str, dict[str, Any]]) -> None:
    for name in [*PROCESSES, "migrate"]:
        service = services[name]
        assert service["image"] == services["ingest"]["image"]
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"]


def test_one_service_builds_the_image_before_the_others_start(
    services: dict[str, dict[str, Any]],
) -> None:
    assert {name for name, service in services.items() if "build" in service} == {"migrate"}
    assert {name for name, service in services.items() if "pull_policy" in service} == {
        *PROCESSES,
        "migrate",
    }
    assert services["migrate"]["build"]["context"] == "."
    assert services["migrate"]["pull_policy"] == "never"


def test_every_service_is_bounded(services: dict[str, dict[str, Any]]) -> None:
    limits = {"cpus": 1.0, "cpu_shares": 512, "mem_limit": "2g", "mem_reservation": "1g"}
    for name in PROCESSES:
        assert {key: services[name][key] for key in limits} == limits


def test_logs_of_every_container_are_rotated(services: dict[str, dict[str, Any]]) -> None:
    for service in services.values():
        assert service["logging"]["driver"] == "json-file"
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "5"}


def test_compose_1_29_reads_the_file(compose: dict[str, Any]) -> None:
    # It refuses the key `name`, and ignores `deploy` without a swarm.
    assert {key for key in compose if not key.startswith("x-")} == {"services", "volumes"}
    assert not [name for name, service in compose["services"].items() if "deploy" in service]


def test_docker_waits_longer_than_a_drain_takes(services: dict[str, dict[str, Any]]) -> None:
    for name in PROCESSES:
        assert services[name]["stop_grace_period"] == "30s"
    assert RuntimeSettings().drain_timeout < 30


def test_secrets_come_from_outside_and_have_no_default() -> None:
    text = (ROOT / "compose.yaml").read_text()
    for name in SECRETS:
        uses = re.findall(rf"\$\{{?{name}\b[^}}]*\}}?", text)
        assert uses
        assert all(re.fullmatch(rf"\$\{{{name}:\?[^}}]+\}}", use) for use in uses), uses


def test_every_variable_is_in_the_example_and_no_other(services: dict[str, dict[str, Any]]) -> None:
    text = (ROOT / "compose.yaml").read_text()
    blocks = [
        *(service.get("environment", {}) for service in services.values()),
        services["migrate"]["build"]["args"],
    ]
    passed_on = {name for block in blocks for name, value in block.items() if value is None}
    interpolated = set(re.findall(r"(?<!\$)\$\{(\w+)", text))
    assert examples().keys() == passed_on | interpolated | {"COMPOSE_PROJECT_NAME"}


def test_the_example_shows_the_defaults() -> None:
    for name, value in examples().items():
        if name in SECRETS:
            assert not value
        elif default := re.search(
            rf"\$\{{{name}:-([^}}]*)\}}", (ROOT / "compose.yaml").read_text()
        ):
            assert value == default[1]
        elif name in known_variables():
            assert value == documented_default(name)


def test_no_file_with_secrets_is_committed_by_accident() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_redis_keeps_what_it_was_given(services: dict[str, dict[str, Any]]) -> None:
    flags = flags_of(services["redis"]["command"][2])
    assert flags["appendonly"] == "yes"
    assert flags["maxmemory-policy"] == "noeviction"
    assert flags["maxmemory"] == "2gb"
    assert "redis:/data" in services["redis"]["volumes"]


def test_redis_takes_its_password_from_its_environment(services: dict[str, dict[str, Any]]) -> None:
    redis = services["redis"]
    assert "requirepass $$REDISCLI_AUTH\n" in redis["command"][2]
    assert "REDIS_PASSWORD" not in redis["command"][2]  # the arguments of a process are no secret
    assert redis["environment"]["REDISCLI_AUTH"].startswith("${REDIS_PASSWORD:?")


def test_tei_has_permits_for_all_requests_of_an_embedder(
    services: dict[str, dict[str, Any]],
) -> None:
    flags = flags_of(services["tei"]["command"])
    assert flags["model-id"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert re.fullmatch("[0-9a-f]{40}", flags["revision"])  # what a branch names may change
    assert flags["max-concurrent-requests"] == "2560"
    assert flags["max-batch-requests"] == "120"
    assert "${TEI_MAX_BATCH_REQUESTS:-120}" in services["tei"]["command"]
    assert int(flags["max-client-batch-size"]) * 80 == int(flags["max-concurrent-requests"])


def test_qdrant_asks_for_a_key_and_reports_to_nobody(services: dict[str, dict[str, Any]]) -> None:
    environment = services["qdrant"]["environment"]
    assert environment["QDRANT__SERVICE__API_KEY"].startswith("${WEBHOOK_QDRANT_API_KEY:?")
    assert environment["QDRANT__TELEMETRY_DISABLED"] == "true"


def test_every_volume_is_declared(
    compose: dict[str, Any], services: dict[str, dict[str, Any]]
) -> None:
    mounted = {
        volume.split(":")[0]
        for service in services.values()
        for volume in service.get("volumes", [])
    }
    files = {name for name in mounted if name.startswith("./")}
    assert mounted - files == set(compose["volumes"])
    assert all((ROOT / name).is_file() for name in files)
    assert "snapshots:/qdrant/snapshots" in services["qdrant"]["volumes"]


def test_the_image_is_built_from_files_that_exist(dockerfile: list[str]) -> None:
    sources = copied(dockerfile)
    assert sources
    assert not [source for source in sources if not (ROOT / source).exists()]


def test_the_build_context_holds_what_the_image_is_built_from(dockerfile: list[str]) -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in rules
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied(dockerfile)


def test_the_image_has_every_package_of_the_project(dockerfile: list[str]) -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "bench"}
    assert packages <= copied(dockerfile)


def test_the_image_installs_locked_versions_of_files_that_it_copied(dockerfile: list[str]) -> None:
    installs = [
        part.strip() for line in dockerfile for part in line.split("&&") if "uv pip install" in part
    ]
    locks = [
        re.findall(r"--(?:requirements|constraints|build-constraints) (\S+)", install)
        for install in installs
    ]
    assert locks == [
        ["pyproject.toml", "requirements.lock"],
        ["requirements.model.lock"],
        ["requirements.lock"],
    ]
    assert {name for names in locks for name in names} <= copied(dockerfile)
    assert not [install for install in installs if "--extra" in install]
    assert [install for install in installs if install.endswith("--target /opt/project .")] == [
        installs[-1]
    ]


def test_only_the_build_trusts_certificates_from_outside(dockerfile: list[str]) -> None:
    arguments = {
        line.removeprefix("ARG ").partition("=")[0] for line in dockerfile if line.startswith("ARG")
    }
    assert arguments == {"CA_CERTIFICATES", "PIP_INDEX_URL", "UV_DEFAULT_INDEX"}
    final = dockerfile[last_stage(dockerfile) :]
    assert not [line for line in final if "CERT" in line or line.startswith("ARG")]


def test_the_image_is_built_with_the_uv_of_the_makefile(dockerfile: list[str]) -> None:
    versions = set(
        re.findall(r"\buv==(\S+)", (ROOT / "Makefile").read_text() + "\n".join(dockerfile))
    )
    assert len(versions) == 1


def test_the_image_runs_unprivileged_and_stops_by_sigterm(dockerfile: list[str]) -> None:
    assert dockerfile[0].startswith("FROM python:3.11-slim")
    final = dockerfile[last_stage(dockerfile) :]
    assert final[0] == "FROM python:3.11-slim"
    assert "STOPSIGNAL SIGTERM" in final
    assert [line for line in final if line.startswith("USER")] == ["USER 10001"]


def test_no_secret_is_built_into_the_image(dockerfile: list[str]) -> None:
    assert not [
        line
        for line in dockerfile
        if line.startswith(("ENV", "ARG")) and re.search(r"SECRET|KEY|PASS", line)
    ]


def flags_of(command: str) -> dict[str, str]:
    """The command's `--name value` pairs; a flag without a value maps to the next flag."""
    words = shlex.split(with_defaults(command))
    return {
        word[2:]: value
        for word, value in zip(words, [*words[1:], ""], strict=True)
        if word.startswith("--")
    }


def examples() -> dict[str, str]:
    """Each variable of .env.example with its value, also those in comments."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    return {match[1]: match[2] for line in lines if (match := EXAMPLE.fullmatch(line))}


def documented_default(name: str) -> str:
    [row] = [row for row in rows("settings.md", 5) if row[0] == f"`{name}`"]
    default = re.match(r"`([^`]+)`", row[1])
    return default[1] if default else ""


def last_stage(dockerfile: list[str]) -> int:
    return max(i for i, line in enumerate(dockerfile) if line.startswith("FROM"))


def copied(dockerfile: list[str]) -> set[str]:
    """What is copied from the build context."""
    copies = [
        line.split()[1:-1]
        for line in dockerfile
        if line.startswith("COPY") and "--from=" not in line
    ]
    return {source for sources in copies for source in sources}
