-- Who wants to hear that a job has ended is told by ingest, and a job's trace goes on in the stages.

ALTER TABLE webhook.jobs ADD COLUMN callback_due_at timestamptz;  -- set when the job ends, null when told or given up
ALTER TABLE webhook.jobs ADD COLUMN callback_attempts integer NOT NULL DEFAULT 0;
CREATE INDEX jobs_callback_due ON webhook.jobs (callback_due_at) WHERE callback_due_at IS NOT NULL;

ALTER TABLE webhook.jobs ADD COLUMN traceparent text;  -- of the request that brought it (W3C); null if it was not traced
