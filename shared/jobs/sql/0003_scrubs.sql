-- Start of the last pass over a target for leftover points; indexers share these passes.

ALTER TABLE webhook.targets ADD COLUMN scrubbed_at timestamptz;
