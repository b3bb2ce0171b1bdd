"""The keyword side of a search: what it asks of an engine, and the engines. Not the fusion."""
