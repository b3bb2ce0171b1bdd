"""The lists of services in the command line agree with the table of stages."""

from cli.commands.serve import Service
from cli.commands.up import colour_of
from shared.pipeline.stages import StageName


def test_every_stage_can_be_served() -> None:
    assert list(Service) == ["ingest", *StageName, "search"]


def test_the_lines_of_each_service_have_a_colour_of_their_own() -> None:
    colours = [colour_of(name) for name in ("ingest", *StageName, "redis")]
    assert len(set(colours)) == len(colours)
    assert colour_of("redis") == "white"
