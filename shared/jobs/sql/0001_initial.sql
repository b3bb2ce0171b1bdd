-- The schema of millstream. Jobs and items are the backlog and the results; documents is the
-- registry that decides which version is visible; payloads are the texts.

-- Every accepted document takes the next version: the last accepted wins.
CREATE SEQUENCE webhook.document_version;
CREATE SEQUENCE webhook.release_number;

CREATE TABLE webhook.jobs (
  job_id       uuid PRIMARY KEY,
  kind         text NOT NULL,
  status       text NOT NULL DEFAULT 'queued',
  lane         text NOT NULL,
  collection   text NOT NULL,
  crawl_id     text,
  callback_url text,
  request_id   text,
  timeout      double precision NOT NULL,  -- seconds for a batch message in one stage
  total        integer NOT NULL,
  succeeded    integer NOT NULL DEFAULT 0,
  failed       integer NOT NULL DEFAULT 0,
  cancelled    integer NOT NULL DEFAULT 0,
  created_at   timestamptz NOT NULL DEFAULT now(),
  started_at   timestamptz,
  finished_at  timestamptz
);
CREATE INDEX jobs_by_age ON webhook.jobs (created_at DESC, job_id);
CREATE INDEX jobs_of_crawl ON webhook.jobs (crawl_id, created_at) WHERE crawl_id IS NOT NULL;
CREATE INDEX jobs_open ON webhook.jobs (created_at) WHERE finished_at IS NULL;
CREATE INDEX jobs_finished ON webhook.jobs (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE webhook.job_items (
  job_id      uuid NOT NULL REFERENCES webhook.jobs ON DELETE CASCADE,
  position    integer NOT NULL,
  state       text NOT NULL,      -- queued, released, or a final state (shared/jobs/model.py)
  action      text NOT NULL DEFAULT 'index',
  lane        text NOT NULL,
  source      text NOT NULL,      -- unit of fairness: crawl id, "api", or id of a bulk load
  domain      text NOT NULL DEFAULT '',
  due_at      timestamptz NOT NULL DEFAULT now(),
  release     bigint NOT NULL DEFAULT 0,  -- only this release of the item is current
  progress_at timestamptz,        -- when a released item was last released, started or passed on
  collection  text NOT NULL,
  target      text,               -- null: the live target of the collection at release
  document_id uuid,               -- null: rejected by ingest
  version     bigint,
  url         text,
  crawl_id    text,
  attempts    integer NOT NULL DEFAULT 0,
  stage       text NOT NULL DEFAULT 'ingest',
  stages      jsonb NOT NULL DEFAULT '{}',  -- stage -> {started_at, finished_at, worker}
  chunks      integer,
  code        text,
  error       text,
  accepted_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  PRIMARY KEY (job_id, position)
) WITH (fillfactor = 75);         -- progress updates stay on their page
CREATE INDEX items_due ON webhook.job_items (lane, source, due_at) WHERE state = 'queued';
CREATE INDEX items_deletes_due ON webhook.job_items (lane, source, due_at)
  WHERE state = 'queued' AND action = 'delete';
CREATE INDEX items_released ON webhook.job_items (release) WHERE state = 'released';
CREATE INDEX items_of_document ON webhook.job_items (document_id, version);

CREATE TABLE webhook.payloads (
  version     bigint PRIMARY KEY,
  document_id uuid NOT NULL,
  body        bytea NOT NULL      -- the document as JSON, sanitised
);

CREATE TABLE webhook.targets (
  target     text PRIMARY KEY,    -- the physical collection in Qdrant
  collection text NOT NULL,
  live       boolean NOT NULL DEFAULT true,
  tei_url    text,                -- null: WEBHOOK_TEI_URL
  model      text,                -- null until the first embedding
  dimension  integer,
  generation uuid NOT NULL DEFAULT gen_random_uuid(),
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX targets_live ON webhook.targets (collection) WHERE live;

CREATE TABLE webhook.documents (
  target        text NOT NULL,
  document_id   uuid NOT NULL,
  fence         bigint NOT NULL,  -- highest version decided
  live_version  bigint,           -- version of the visible points; null: deleted
  url           text NOT NULL DEFAULT '',
  content_hash  bytea,
  fingerprint   bytea,
  chunks        integer NOT NULL DEFAULT 0,
  domain        text NOT NULL DEFAULT '',
  crawl_id      text,             -- the crawl that last changed it
  seen_crawl_id text,             -- the crawl that last saw it
  changed_at    timestamptz NOT NULL DEFAULT now(),
  seen_at       timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (target, document_id)
) WITH (fillfactor = 85);
CREATE INDEX documents_changed ON webhook.documents (target, changed_at);
CREATE INDEX documents_by_domain ON webhook.documents (target, domain);
CREATE INDEX documents_live_version ON webhook.documents (live_version)
  WHERE live_version IS NOT NULL;

CREATE TABLE webhook.idempotency_keys (
  scope        text NOT NULL,
  key          text NOT NULL,
  request_hash bytea NOT NULL,
  job_id       uuid NOT NULL,
  expires_at   timestamptz NOT NULL,
  PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_keys_expiry ON webhook.idempotency_keys (expires_at);

CREATE TABLE webhook.dead_letters (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  job_id      uuid,               -- null: an unreadable entry, stored as it is
  position    integer,
  document_id uuid,
  version     bigint,             -- its text is in payloads
  url         text,
  stage       text NOT NULL,
  code        text NOT NULL,
  error       text NOT NULL,
  attempts    integer NOT NULL DEFAULT 0,
  deliveries  integer NOT NULL DEFAULT 0,
  header      bytea,
  body        bytea,
  created_at  timestamptz NOT NULL DEFAULT now(),
  replayed_at timestamptz
);
CREATE INDEX dead_letters_of_job ON webhook.dead_letters (job_id, position);
CREATE INDEX dead_letters_version ON webhook.dead_letters (version) WHERE replayed_at IS NULL;

CREATE TABLE webhook.embedding_cache (
  key       bytea PRIMARY KEY,    -- sha256 of model, revision, dimension, prompt and the exact text
  vector    bytea NOT NULL,
  last_used date NOT NULL DEFAULT current_date
);

CREATE TABLE webhook.operation_metrics (
  id             bigint GENERATED ALWAYS AS IDENTITY,
  timestamp      timestamptz NOT NULL DEFAULT now(),
  operation_type text NOT NULL,
  operation_name text NOT NULL,
  duration_ms    double precision NOT NULL,
  success        boolean NOT NULL,
  error_message  text,
  request_id     text,
  job_id         uuid,
  crawl_id       text,
  document_url   text,
  metadata       jsonb NOT NULL DEFAULT '{}'
) PARTITION BY RANGE (timestamp);
CREATE INDEX operation_metrics_by_type ON webhook.operation_metrics (operation_type, timestamp);
CREATE INDEX operation_metrics_of_job ON webhook.operation_metrics (job_id);
CREATE TABLE webhook.operation_metrics_default PARTITION OF webhook.operation_metrics DEFAULT;
