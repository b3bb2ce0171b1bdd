#!/bin/sh
# As the official image: data in /qdrant/storage, port 6333, the key in QDRANT__SERVICE__API_KEY.
exec python -m local.qdrant --host 0.0.0.0 --port 6333 --data-dir /qdrant/storage \
  --api-key "$QDRANT__SERVICE__API_KEY"
