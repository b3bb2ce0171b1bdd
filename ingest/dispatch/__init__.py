"""Releases queued documents to the streams: picking, sizing, publishing, rescue, reindexing."""
