"""The embedded TEI: an HTTP server with the routes, limits and errors of Text Embeddings Inference
1.9.

It serves one English model (all-MiniLM-L6-v2, 384 dimensions, 256 tokens) from the CPU, in a
process of its own. In production a real TEI takes its place; only the URL changes.
"""
