"""Queries and changes of jobs, documents and dead letters that only ingest makes."""
