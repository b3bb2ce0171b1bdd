"""The order in which waiting texts are sent: by lane, then in turns among a lane's documents. Pure."""

from collections import deque
from collections.abc import Mapping

from embedder.submission import Piece, Submission
from shared.messages import Lane

SHARES = {Lane.HIGH: 6, Lane.NORMAL: 3, Lane.LOW: 1}


class Backlog:
    """Documents with texts that are not yet sent; it copies none, so waiting costs one entry a document."""

    def __init__(self, turn: int) -> None:
        """`turn` is how many texts a document may send before the next one of its lane is served."""
        self._turn = turn
        self._lanes: dict[Lane, deque[Submission]] = {lane: deque() for lane in SHARES}

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

    def take(self, count: int) -> list[Piece]:
        """Take at most `count` texts: shared out among lanes, then in turns."""
        waiting = {lane: sum(each.waiting for each in documents) for lane, documents in self._lanes.items()}
        quotas = share_out(waiting, count)
        return [piece for lane, quota in quotas.items() for piece in self._take_from(lane, quota)]

    def _take_from(self, lane: Lane, count: int) -> list[Piece]:
        documents = self._lanes[lane]
        pieces: list[Piece] = []
        while documents and len(pieces) < count:
            submission = documents.popleft()
            pieces += submission.take(min(self._turn, count - len(pieces)))
            if submission.waiting:
                documents.append(submission)
        return pieces


def share_out(waiting: Mapping[Lane, int], count: int) -> dict[Lane, int]:
    """Say how many of `count` places each lane gets; with 3 or more, no lane with waiting texts gets none."""
    total = sum(SHARES.values())
    quotas: dict[Lane, int] = {}
    for lane, share in SHARES.items():
        room = count - sum(quotas.values())
        quotas[lane] = min(waiting[lane], max(1, count * share // total), room)
    for lane in SHARES:
        quotas[lane] += min(waiting[lane] - quotas[lane], count - sum(quotas.values()))
    return quotas
