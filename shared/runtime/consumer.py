"""Putting a worker together: the composition root of a stage's process."""

import random
from collections.abc import Mapping

from shared.jobs.progress import Progress
from shared.pipeline.entries import Place
from shared.pipeline.outcomes import Stage
from shared.pipeline.stages import StageName
from shared.runtime.faults.breaker import Breakers, Canary
from shared.runtime.faults.failures import Failures
from shared.runtime.process import Process
from shared.runtime.recorder import Recorder
from shared.runtime.slots import Slots
from shared.runtime.streams.gate import Gate, marks
from shared.runtime.streams.groups import create_groups
from shared.runtime.streams.handover import HandOver
from shared.runtime.streams.intake import Intake
from shared.runtime.streams.janitor import Janitor
from shared.runtime.streams.leases import Leases
from shared.runtime.worker import Worker
from shared.service.settings import RuntimeSettings


def make_failures(stage: StageName, settings: RuntimeSettings) -> Failures:
    """How errors of single documents are judged in this process."""
    return Failures(stage, settings.max_attempts, random.Random())  # noqa: S311 - spreads retries, guards nothing


async def run_stage(
    process: Process, stage: Stage, settings: RuntimeSettings, canaries: Mapping[str, Canary] | None = None
) -> None:
    """Work on the stage's streams until the process is told to stop, then drain.

    A dependency's health check is its canary, unless `canaries` has a better one.
    """
    name = stage.name
    process.metrics.begin_stage(name)
    consumer = f"{name}:{process.instance}"
    place = Place(stage=name, consumer=consumer, lease=settings.lease)
    leases = Leases(process.redis, place, settings.lease_renewal)
    gate = None
    if name.next is not None:
        gate = Gate(process.redis, name.next, marks(settings.stream_entries, settings.stream_bytes)[name.next])
    intake = Intake(process.reader, process.redis, place, leases, gate)
    worker = Worker(
        stage=stage,
        intake=intake,
        leases=leases,
        recorder=Recorder(Progress(process.pool, name, consumer), process.operations, process.metrics, name),
        handover=HandOver(process.redis, place, process.metrics),
        failures=make_failures(name, settings),
        breakers=Breakers({**process.health.checks, **(canaries or {})}, process.metrics),
        janitor=Janitor(process.redis, place),
        slots=Slots(settings.stage_concurrency),
        settings=settings,
        metrics=process.metrics,
        tracing=process.tracing,
    )
    await create_groups(process.redis, name)
    process.health.is_ready = True
    await worker.run(process.stop)
