-- What the embedding cache needs to be pruned by age, and what it saved, by item and by job.

CREATE INDEX embedding_cache_by_use ON webhook.embedding_cache (last_used);
ALTER TABLE webhook.embedding_cache ALTER COLUMN vector SET STORAGE EXTERNAL;  -- floats do not compress

ALTER TABLE webhook.job_items ADD COLUMN cached integer;  -- chunks whose vectors came from the cache
ALTER TABLE webhook.jobs ADD COLUMN chunks bigint NOT NULL DEFAULT 0;          -- of documents that ended well
ALTER TABLE webhook.jobs ADD COLUMN inputs_saved bigint NOT NULL DEFAULT 0;    -- of these, not sent to TEI
