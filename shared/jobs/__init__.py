"""State in Postgres that more than one service writes: jobs, items, documents, targets, payloads, operations."""
