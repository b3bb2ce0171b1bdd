-- How a crawl ended, as it said itself. Without a row it has not, or its webhook leaves that event out.

CREATE TABLE webhook.crawl_ends (
  crawl_id text PRIMARY KEY,
  type     text NOT NULL,  -- of the event, such as crawl.completed
  ended_at timestamptz NOT NULL DEFAULT now()
);
