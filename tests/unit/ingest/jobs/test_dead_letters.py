"""Filters of dead letters as SQL."""

from ingest.jobs.dead_letters import LetterFilter, LetterStage, conditions


def test_only_what_is_set_becomes_a_condition_and_arguments_are_numbered_in_order() -> None:
    where, arguments = conditions(LetterFilter(stage=LetterStage.INDEXER, url="https://example.com/", ids=(1, 2)))
    assert where == "l.stage = $1 AND l.url = $2 AND l.id = ANY ($3::bigint[]) AND l.replayed_at IS NULL"
    assert arguments == [LetterStage.INDEXER, "https://example.com/", (1, 2)]


def test_no_condition_means_all_letters() -> None:
    assert conditions(LetterFilter(), with_replayed=True) == ("true", [])


def test_no_ids_are_a_filter_that_nothing_matches() -> None:
    assert LetterFilter().is_empty
    assert not LetterFilter(ids=()).is_empty
    assert conditions(LetterFilter(ids=()))[1] == [()]
