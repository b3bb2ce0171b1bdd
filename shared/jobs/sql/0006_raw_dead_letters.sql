-- The stream entry of a raw dead letter: each entry is stored once, even if several are equal.

ALTER TABLE webhook.dead_letters ADD COLUMN entry text;
CREATE UNIQUE INDEX dead_letters_entry ON webhook.dead_letters (entry);
