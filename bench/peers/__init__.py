"""What people use instead, each in its own words: scripts for an environment of their own (`make bench-peers`).

Each gets the same chunks, embeds them with the same TEI, stores them in the same Qdrant, and prints one line of JSON,
`{"seconds": .., "cpu_s": ..}`. What was stored is counted by the stand-ins.
"""
