"""Filters of dead letters as SQL."""

from ingest.jobs.dead_letters import LetterFilter, LetterStage, conditions
from shared.pipeline.stages import StageName


def test_a_dead_letter_comes_from_a_stage_or_from_a_callback() -> None:
    assert list(LetterStage) == [*StageName, "callback"]


def test_only_set_filters_become_conditions_with_numbered_arguments() -> None:
    where, arguments = conditions(
        LetterFilter(stage=LetterStage.INDEXER, url="https://example.com/", ids=(1, 2))
    )
    assert (
        where
        == "l.stage = $1 AND l.url = $2 AND l.id = ANY ($3::bigint[]) AND l.replayed_at IS NULL"
    )
    assert arguments == [LetterStage.INDEXER, "https://example.com/", (1, 2)]


def test_an_empty_filter_selects_all_letters() -> None:
    assert conditions(LetterFilter(), with_replayed=True) == ("true", [])


def test_an_empty_list_of_ids_selects_no_letter() -> None:
    assert LetterFilter().is_empty
    assert not LetterFilter(ids=()).is_empty
    assert conditions(LetterFilter(ids=()))[1] == [()]
