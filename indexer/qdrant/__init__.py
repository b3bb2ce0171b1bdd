"""Everything that knows Qdrant: the client, collections, points and how they are written."""
