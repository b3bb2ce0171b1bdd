"""One TEI with one queue, shared by embedders and searches: short form of `make bench NAME=queue`.

How busy TEI is depends on the rest of the machine, too: the bench measures it.
"""

import pytest

from bench import queue

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("embedders", [1, 4])
async def test_a_busy_tei_answers_questions_and_nothing_is_given_up(embedders: int) -> None:
    row = await queue.shared_by(embedders, mode="quick-cpu")
    assert row["degraded"] == 0
    assert row["not indexed"] == 0
    assert row["attempts"] == 0
    assert row["given up %"] <= 2
    assert row["queue p95 s"] <= 1.0, "60 inputs in flight would wait for 1.5 s"
