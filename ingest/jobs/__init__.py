"""Queries and changes of jobs, documents, targets and dead letters that only ingest makes.

The SQL of those tables is here, but for the release of items (`ingest/dispatch`).
"""
