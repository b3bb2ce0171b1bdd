-- Targets whose collection was found missing in Qdrant: their visible documents are queued again,
-- slice by slice. A row is deleted when the last slice is queued.

CREATE TABLE webhook.recoveries (
  target             text PRIMARY KEY,
  recovery_id        uuid NOT NULL DEFAULT gen_random_uuid(),
  cursor             uuid,                            -- last document read; null: none yet
  documents          bigint NOT NULL DEFAULT 0,       -- queued so far
  is_collection_back boolean NOT NULL DEFAULT false,  -- missing after that: lost again
  begun_at           timestamptz NOT NULL DEFAULT now()
);
