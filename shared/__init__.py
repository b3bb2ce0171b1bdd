"""What the services have in common."""

import sys

# Where OpenTelemetry is installed redis-py imports its metrics, which nothing here uses: 3 MB a process (measured).
# They are made to look as if they were not installed, before anything can import redis.
sys.modules.setdefault("opentelemetry.sdk.metrics", None)  # type: ignore[arg-type]
