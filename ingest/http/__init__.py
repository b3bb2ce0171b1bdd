"""The HTTP API of ingest: the application, credentials, request bodies, the OpenAPI document.

No SQL and no parsing of documents.
"""
