"""Queueing known documents as items of a new job: for a store that was lost, or for another target.

Each item has the version decided last and the text of the visible version; they differ if the
document was sent again unchanged. So a document accepted later still wins, and a version once
passed stays hidden.
"""

from shared.jobs.model import JobKind
from shared.pipeline.lanes import Lane
from shared.pipeline.messages import Action

# Common table expressions over `wanted` (document_id, fence, live_version, url, domain, crawl_id).
# A deleted document becomes a delete. $1 the target of the items, $2 the job's id, $3 the time
# limit of a batch message in one stage, in seconds.
_TRANSFERS = f"""
texts AS (
  INSERT INTO webhook.payloads (version, document_id, body)
  SELECT w.fence, w.document_id, p.body
  FROM wanted w JOIN webhook.payloads p ON p.version = w.live_version
  ON CONFLICT (version) DO NOTHING),
job AS (
  INSERT INTO webhook.jobs (job_id, kind, lane, collection, timeout, total)
  SELECT $2::uuid, '{JobKind.REINDEX}', '{{lane}}', t.collection, $3::float8,
         (SELECT count(*) FROM wanted)
  FROM webhook.targets t WHERE t.target = $1::text AND EXISTS (SELECT FROM wanted)
  RETURNING collection),
transfers AS (
  INSERT INTO webhook.job_items
    (job_id, position, state, action, lane, collection, target, source, domain, document_id,
     version, url, crawl_id)
  SELECT $2, row_number() OVER (ORDER BY w.document_id) - 1, 'queued',
         CASE WHEN w.live_version IS NULL THEN '{Action.DELETE}' ELSE '{Action.INDEX}' END,
         '{{lane}}', job.collection, $1, $2::text, w.domain, w.document_id, w.fence, w.url,
         w.crawl_id
  FROM wanted w, job
  RETURNING 1)
"""


def transfers(lane: Lane) -> str:
    """The expressions with their lane filled in."""
    return _TRANSFERS.format(lane=lane)
