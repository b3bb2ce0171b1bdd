-- Which entry of a stream a raw dead letter was: each is kept once, also when many are alike.

ALTER TABLE webhook.dead_letters ADD COLUMN entry text;
CREATE UNIQUE INDEX dead_letters_entry ON webhook.dead_letters (entry);
