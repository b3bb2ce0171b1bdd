"""The present and recent state of the pipeline: streams, pending entries, rates, operations.

Reads only, except for `operator`.
"""
