-- Changing the model or the chunking of a collection: settings of targets, and progress of
-- reindexes.

-- Null in these five: the setting of the chunker.
ALTER TABLE webhook.targets ADD COLUMN max_chunk_tokens integer;
ALTER TABLE webhook.targets ADD COLUMN chunk_overlap_tokens integer;
ALTER TABLE webhook.targets ADD COLUMN chunk_prefix_tokens integer;
ALTER TABLE webhook.targets ADD COLUMN max_chunk_characters integer;
ALTER TABLE webhook.targets ADD COLUMN tokenizer text;
-- The target was live until `retired_at` and is kept for a rollback; after `dropped_at` it is not.
ALTER TABLE webhook.targets ADD COLUMN retired_at timestamptz;
ALTER TABLE webhook.targets ADD COLUMN dropped_at timestamptz;

CREATE TABLE webhook.reindexes (
  reindex_id     uuid PRIMARY KEY,
  collection     text NOT NULL,
  source         text NOT NULL REFERENCES webhook.targets,  -- live until the switch
  target         text NOT NULL REFERENCES webhook.targets,  -- live after it
  is_rollback    boolean NOT NULL DEFAULT false,
  skip_failed    boolean NOT NULL DEFAULT false,  -- switch although documents failed
  phase          text NOT NULL DEFAULT 'filling', -- filling, pausing, switched, cancelled
  phase_since    timestamptz NOT NULL DEFAULT now(),
  resume_at      timestamptz NOT NULL DEFAULT now(),  -- no step before
  pass           integer NOT NULL DEFAULT 1,      -- number of the pass over the source
  pass_cursor    uuid,                            -- the last document that this pass has read
  pass_documents integer NOT NULL DEFAULT 0,      -- found different by this pass
  is_pass_done   boolean NOT NULL DEFAULT false,
  transferred    bigint NOT NULL DEFAULT 0,       -- documents queued, in all passes
  error          text,                            -- why it waits, if a person must act
  created_at     timestamptz NOT NULL DEFAULT now(),
  finished_at    timestamptz
);
CREATE UNIQUE INDEX reindexes_open ON webhook.reindexes (collection) WHERE finished_at IS NULL;
CREATE INDEX reindexes_by_age ON webhook.reindexes (collection, created_at DESC);

-- Few items name their target: the transfers of a reindex or of a lost store.
CREATE INDEX items_targeted_due ON webhook.job_items (lane, source, due_at)
  WHERE state = 'queued' AND target IS NOT NULL;
CREATE INDEX items_of_target ON webhook.job_items (target, state) WHERE target IS NOT NULL;
