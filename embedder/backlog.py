"""The order in which the texts of one lane are sent: in turns among its documents. Pure."""

from collections import deque

from embedder.submission import Submission, Wanted


class Backlog:
    """Documents with texts that are not yet sent; it copies none, so waiting costs one entry a
    document.
    """

    def __init__(self) -> None:
        self._documents: deque[Submission] = deque()

    def __len__(self) -> int:
        """How many texts wait."""
        return sum(submission.waiting for submission in self._documents)

    def add(self, submission: Submission) -> None:
        """Put a document with at least one text at the end."""
        self._documents.append(submission)

    def discard(self, submission: Submission) -> None:
        """Forget a document's texts that still wait, if any do."""
        if submission in self._documents:
            self._documents.remove(submission)

    def take(self, count: int, turn: int) -> list[Wanted]:
        """Take at most `count` texts, in turns of `turn` texts a document."""
        texts: list[Wanted] = []
        while self._documents and len(texts) < count:
            submission = self._documents.popleft()
            texts += submission.take(min(turn, count - len(texts)))
            if submission.waiting:
                self._documents.append(submission)
        return texts
