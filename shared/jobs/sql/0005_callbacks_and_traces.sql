-- Completion webhooks of jobs, which ingest sends; and traces, which the stages continue.

-- Set when the job ends; null once delivered or dead-lettered.
ALTER TABLE webhook.jobs ADD COLUMN callback_due_at timestamptz;
ALTER TABLE webhook.jobs ADD COLUMN callback_attempts integer NOT NULL DEFAULT 0;
CREATE INDEX jobs_callback_due ON webhook.jobs (callback_due_at) WHERE callback_due_at IS NOT NULL;

-- Of the request (W3C); null if it was not traced.
ALTER TABLE webhook.jobs ADD COLUMN traceparent text;
