"""From the payload of a request to an accepted document.

All functions are pure, except those of `acceptance`. SQL is in `ingest/jobs`.
"""
