-- Age of the entries of the embedding cache, for their retention; and its hits, by item and by job.

CREATE INDEX embedding_cache_by_use ON webhook.embedding_cache (last_used);
-- Floats do not compress.
ALTER TABLE webhook.embedding_cache ALTER COLUMN vector SET STORAGE EXTERNAL;

-- Chunks whose vectors came from the cache.
ALTER TABLE webhook.job_items ADD COLUMN cached integer;
-- Chunks of the documents that succeeded, and those of them that were not sent to TEI.
ALTER TABLE webhook.jobs ADD COLUMN chunks bigint NOT NULL DEFAULT 0;
ALTER TABLE webhook.jobs ADD COLUMN inputs_saved bigint NOT NULL DEFAULT 0;
