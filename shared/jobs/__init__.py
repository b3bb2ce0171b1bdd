"""State in Postgres that more than one service writes: jobs, items, documents, targets, payloads,
operations.

SQL that only one service runs belongs to that service.
"""
