"""The embedded vector store: the part of Qdrant's REST API that millstream uses, over qdrant-edge.

One process owns the data; every service talks to it with the ordinary qdrant-client, as to a real
server. Searches are exact (no HNSW graph), which is good to about 100,000 points; beyond that run
Qdrant itself.
"""
