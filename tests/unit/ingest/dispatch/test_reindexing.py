"""What a reindex does next, and what settings its target gets."""

import datetime as dt
from typing import Any

import pytest

from ingest.dispatch.reindexing import FEW, MAX_OPEN_TRANSFERS, MAX_PASSES, Step, next_step
from ingest.http.routes.reindex import ReindexRequest, merged
from ingest.jobs.reindexes import OpenReindex, Phase
from shared.jobs.targets import TargetSettings

LONGEST_PAUSE = 600.0


def reindex(phase: Phase, **changes: Any) -> OpenReindex:
    """A reindex whose pass is done, and found nothing."""
    usual: dict[str, Any] = {
        "reindex_id": "r",
        "collection": "docs",
        "source": "docs_1",
        "target": "docs_2",
        "skip_failed": False,
        "phase_since": dt.datetime.now(dt.UTC),
        "phase_seconds": 1.0,
        "is_due": True,
        "pass_": 1,
        "pass_cursor": None,
        "pass_documents": 0,
        "is_pass_done": True,
        "open_transfers": 0,
        "is_in_flight": False,
        "failed": 0,
    }
    return OpenReindex(phase=phase, **usual | changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Step.PAUSE),
        ({"pass_documents": FEW}, Step.PAUSE),
        ({"pass_documents": FEW + 1}, Step.NEXT_PASS),
        ({"pass_documents": FEW + 1, "pass_": MAX_PASSES}, Step.PAUSE),
        ({"is_pass_done": False}, Step.TRANSFER),
        ({"is_pass_done": False, "open_transfers": MAX_OPEN_TRANSFERS}, Step.WAIT),
        ({"open_transfers": 1}, Step.WAIT),
        ({"is_due": False}, Step.WAIT),
        ({"failed": 1}, Step.HOLD),
        ({"failed": 1, "open_transfers": 1}, Step.WAIT),
        ({"failed": 1, "skip_failed": True}, Step.PAUSE),
        ({"phase_seconds": LONGEST_PAUSE + 1}, Step.PAUSE),
    ],
)
def test_it_fills_the_target_until_few_documents_differ(
    changes: dict[str, Any], expected: Step
) -> None:
    assert next_step(reindex(Phase.FILLING, **changes), LONGEST_PAUSE) is expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Step.SWITCH),
        ({"pass_documents": 1}, Step.NEXT_PASS),
        ({"pass_documents": 1, "pass_": MAX_PASSES}, Step.NEXT_PASS),
        ({"is_pass_done": False}, Step.TRANSFER),
        ({"is_pass_done": False, "is_in_flight": True}, Step.WAIT),
        ({"is_in_flight": True}, Step.WAIT),
        ({"open_transfers": 1}, Step.WAIT),
        ({"failed": 1}, Step.HOLD),
        ({"failed": 1, "skip_failed": True}, Step.SWITCH),
        ({"phase_seconds": LONGEST_PAUSE + 1}, Step.GIVE_WAY),
        ({"phase_seconds": LONGEST_PAUSE + 1, "is_in_flight": True}, Step.GIVE_WAY),
    ],
)
def test_it_switches_in_the_pause_after_a_pass_that_finds_nothing_with_nothing_in_flight(
    changes: dict[str, Any], expected: Step
) -> None:
    assert next_step(reindex(Phase.PAUSING, **changes), LONGEST_PAUSE) is expected


def test_settings_not_given_stay_as_the_collection_has_them() -> None:
    live = TargetSettings(tei_url="http://old:80", max_chunk_tokens=128, tokenizer="/old.json")
    wanted = ReindexRequest(collection="docs", tei_url="http://new:80", chunk_overlap_tokens=0)
    assert merged(live, wanted) == TargetSettings(
        tei_url="http://new:80", max_chunk_tokens=128, chunk_overlap_tokens=0, tokenizer="/old.json"
    )
    assert merged(TargetSettings(), wanted) == TargetSettings(
        tei_url="http://new:80", chunk_overlap_tokens=0
    )
