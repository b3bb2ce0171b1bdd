"""The stand-ins of `make compose-test` are for images that our files name."""

import re

import pytest

from tests.compose.deployment import PROCESSES, SERVERS, mebibytes
from tests.compose.images import ROOT, wanted

IMAGES = ROOT / "tests/compose/images"


def test_each_image_has_a_stage_that_can_stand_in_for_it() -> None:
    stages = set(
        re.findall(r"^FROM \S+ AS (\w+)$", (IMAGES / "Dockerfile").read_text(), re.MULTILINE)
    )
    assert wanted().keys() <= stages
    assert all(re.fullmatch(r"[\w./-]+:[\w.-]+", name) for name in wanted().values())


def test_both_dockerfiles_use_the_same_uv() -> None:
    texts = [(ROOT / "Dockerfile").read_text(), (IMAGES / "Dockerfile").read_text()]
    assert len({version for text in texts for version in re.findall(r"\buv==(\S+)", text)}) == 1


def test_every_service_is_a_server_or_a_process_of_ours() -> None:
    text = (ROOT / "compose.yaml").read_text()
    services = re.findall(
        r"^  (\w+):$", text.partition("\nservices:")[2].partition("\nvolumes:")[0], re.MULTILINE
    )
    assert sorted(services) == sorted([*PROCESSES, *SERVERS, "migrate"])


@pytest.mark.parametrize(
    ("text", "size"), [("76.5MiB ", 76.5), ("1.5GiB", 1536.0), ("512KiB", 0.5), ("0B", 0.0)]
)
def test_sizes_of_docker_stats_are_read(text: str, size: float) -> None:
    assert mebibytes(text) == size
