"""The HTTP side of ingest: the application, credentials, request bodies, the OpenAPI document."""
