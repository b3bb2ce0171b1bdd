-- Which process does what only one may do at a time. A lease that is not renewed expires, whatever
-- happened to its holder: a lock of a session would stay with a process that is frozen, or whose
-- host has vanished.

CREATE TABLE webhook.leases (
  name       text PRIMARY KEY,
  holder     text NOT NULL,  -- host:pid:bootid
  expires_at timestamptz NOT NULL
);
