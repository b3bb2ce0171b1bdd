"""What waits in Postgres, as the metrics and the doctor see it."""

import pytest

from cli.doctor.probes import see_work
from ingest.dispatch.election import DISPATCHER, Election
from ingest.inspection.streams import StreamInspector
from ingest.inspection.throughput import Throughput
from ingest.inspection.watch import PipelineWatch
from shared.pipeline.lanes import Lane
from shared.service.metrics import Metrics
from tests.support.stage_harness import Servers, accept_documents, runtime_settings

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_documents_that_wait_for_a_retry_are_of_the_backlog_but_not_due(
    servers: Servers,
) -> None:
    await accept_documents(servers, 3)
    await servers.pool.execute(
        "UPDATE webhook.job_items SET due_at = now() + interval '1 hour' WHERE position = 0"
    )
    metrics = Metrics()
    inspector = StreamInspector(servers.redis, Throughput(servers.redis))
    watch = PipelineWatch(inspector, servers.redis, servers.pool, metrics.pipeline, lease=30)
    seen = await watch.look()
    assert seen.backlog == {Lane.HIGH: 0, Lane.NORMAL: 3, Lane.LOW: 0}
    due = {
        lane: metrics.registry.get_sample_value("millstream_due_documents", {"lane": lane})
        for lane in Lane
    }
    assert due == {Lane.HIGH: 0, Lane.NORMAL: 2, Lane.LOW: 0}


async def test_the_doctor_sees_which_process_is_elected_to_dispatch(servers: Servers) -> None:
    settings = runtime_settings()
    assert (await see_work(servers.pool, settings)).backlog.dispatcher is None
    assert await Election(servers.pool, DISPATCHER, "host:7:boot").win()
    assert (await see_work(servers.pool, settings)).backlog.dispatcher == "host:7:boot"
    await servers.pool.execute("UPDATE webhook.leases SET expires_at = now() - interval '1 second'")
    assert (await see_work(servers.pool, settings)).backlog.dispatcher is None
