-- When somebody last began to look for left points in a target: indexers share these passes among them.

ALTER TABLE webhook.targets ADD COLUMN scrubbed_at timestamptz;
