"""The order in which waiting texts are sent: by lane, then in turns among a lane's documents. Pure."""

from collections import deque
from collections.abc import Mapping

from embedder.submission import Submission, Wanted
from shared.messages import Lane
from shared.runtime.policy import LANE_WEIGHTS


class Backlog:
    """Documents with texts that are not yet sent; it copies none, so waiting costs one entry a document."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, deque[Submission]] = {lane: deque() for lane in LANE_WEIGHTS}

    def __len__(self) -> int:
        """How many texts wait."""
        return sum(submission.waiting for lane in self._lanes.values() for submission in lane)

    def add(self, submission: Submission, lane: Lane) -> None:
        """Put a document with at least one text at the end of its lane."""
        self._lanes[lane].append(submission)

    def discard(self, submission: Submission, lane: Lane) -> None:
        """Forget a document's texts that still wait, if any do."""
        if submission in self._lanes[lane]:
            self._lanes[lane].remove(submission)

    def take(self, count: int, turn: int) -> list[Wanted]:
        """Take at most `count` texts: shared out among lanes, then in turns of `turn` texts a document."""
        waiting = {lane: sum(each.waiting for each in documents) for lane, documents in self._lanes.items()}
        quotas = share_out(waiting, count)
        return [text for lane, quota in quotas.items() for text in self._take_from(lane, quota, turn)]

    def _take_from(self, lane: Lane, count: int, turn: int) -> list[Wanted]:
        documents = self._lanes[lane]
        texts: list[Wanted] = []
        while documents and len(texts) < count:
            submission = documents.popleft()
            texts += submission.take(min(turn, count - len(texts)))
            if submission.waiting:
                documents.append(submission)
        return texts


def share_out(waiting: Mapping[Lane, int], count: int) -> dict[Lane, int]:
    """Say how many of `count` places each lane gets; with 3 or more, no lane with waiting texts gets none."""
    total = sum(LANE_WEIGHTS.values())
    quotas: dict[Lane, int] = {}
    for lane, share in LANE_WEIGHTS.items():
        room = count - sum(quotas.values())
        quotas[lane] = min(waiting[lane], max(1, count * share // total), room)
    for lane in LANE_WEIGHTS:
        quotas[lane] += min(waiting[lane] - quotas[lane], count - sum(quotas.values()))
    return quotas
