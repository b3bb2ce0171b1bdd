"""The last hour by minutes, from operation_metrics: ended documents, durations of the stages."""

import datetime as dt

import asyncpg
import msgspec

from shared.pipeline.stages import STAGES, StageName

_TIMES = "".join(
    f""",
       percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms)
         FILTER (WHERE operation_type = '{row.operation_type}') AS {stage}_ms"""
    for stage, row in STAGES.items()
)

_MINUTES = f"""
SELECT date_bin('1 minute', timestamp, 'epoch') AS minute,
       count(*) FILTER (WHERE operation_type = 'document_indexing' AND success) AS succeeded,
       count(*) FILTER (WHERE operation_type = 'document_indexing' AND NOT success)
         AS failed{_TIMES}
FROM webhook.operation_metrics
WHERE timestamp > now() - interval '1 hour'
  AND operation_type = ANY ($1::text[])
GROUP BY minute ORDER BY minute
"""


class _Documents(msgspec.Struct, frozen=True, kw_only=True):
    minute: dt.datetime  # its start
    succeeded: int  # documents
    failed: int


Minute = msgspec.defstruct(
    "Minute",
    [(f"{stage}_ms", float | None) for stage in StageName],
    bases=(_Documents,),
    namespace={
        "__doc__": "One minute. The durations are 95th percentiles, null without an operation."
    },
    frozen=True,
    kw_only=True,
)


class History(msgspec.Struct, frozen=True, kw_only=True):
    # Oldest first, without idle minutes.
    minutes: list[Minute]  # type: ignore[valid-type]


async def last_hour(pool: asyncpg.Pool) -> History:
    """Read the last hour; about 0.1 s for 100,000 rows.

    Raises DependencyError when Postgres is unavailable.
    """
    types = ["document_indexing", *(row.operation_type for row in STAGES.values())]
    rows = await pool.fetch(_MINUTES, types)
    return History(minutes=[msgspec.convert(dict(row), Minute) for row in rows])
