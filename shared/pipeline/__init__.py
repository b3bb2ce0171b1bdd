"""The language of the pipeline: messages, stages, lanes, entries, outcomes.

Types and pure functions, no servers.
"""
