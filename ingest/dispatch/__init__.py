"""Releasing queued documents to the streams: picking, sizing, publishing, rescue, reindexing.

Only the elected dispatcher runs this code.
"""
