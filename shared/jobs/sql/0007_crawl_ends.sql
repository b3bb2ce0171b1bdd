-- The end of a crawl, as its webhook reported it. No row: the crawl has not ended, or its webhook
-- omits the event.

CREATE TABLE webhook.crawl_ends (
  crawl_id text PRIMARY KEY,
  type     text NOT NULL,  -- of the event, such as crawl.completed
  ended_at timestamptz NOT NULL DEFAULT now()
);
