"""A document that failed and can be replayed, which a healthy pipeline does not produce."""

import uuid

import msgspec

from tests.support.inspection import query
from tests.support.pipeline import Pipeline

# A document that was indexed, made one that failed: its text is kept, and it can succeed again.
_FAIL_ITEM = """
UPDATE webhook.job_items
SET state = 'failed', code = $2, error = 'it [/broke]', attempts = 5
WHERE job_id = $1
"""
_FAIL_JOB = "UPDATE webhook.jobs SET status = 'failed', succeeded = 0, failed = 1 WHERE job_id = $1"
_ADD_DEAD_LETTER = """
INSERT INTO webhook.dead_letters (
  job_id, position, document_id, version, url, stage, code, error, attempts, deliveries)
SELECT job_id, position, document_id, version, url, 'indexer', code, error, attempts, 1
FROM webhook.job_items WHERE job_id = $1 RETURNING id
"""


class FailedDocument(msgspec.Struct, frozen=True):
    """The one document of a job, with a code of its own."""

    job_id: str
    url: str
    code: str
    letter_id: int


def failed_document(pipeline: Pipeline) -> FailedDocument:
    """Index a document and make it a dead letter afterwards."""
    url, code = f"https://example.com/{uuid.uuid4()}", f"test_{uuid.uuid4().hex}"
    job_id = pipeline.index([{"url": url, "markdown": "# Tapir\n\nThe tapir swims."}])
    assert pipeline.finished(job_id)["status"] == "succeeded"
    query(pipeline, _FAIL_ITEM, job_id, code)
    query(pipeline, _FAIL_JOB, job_id)
    return FailedDocument(job_id, url, code, query(pipeline, _ADD_DEAD_LETTER, job_id)[0]["id"])
