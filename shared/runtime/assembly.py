"""Puts a stage's worker together and runs it."""

import random
from collections.abc import Mapping
from typing import Any

from shared.jobs.progress import Progress
from shared.jobs.targets import Targets
from shared.pipeline.entries import Consumer
from shared.pipeline.stages import StageName
from shared.runtime.faults.breaker import Breakers, Canary
from shared.runtime.faults.failures import Failures, Patience
from shared.runtime.process import Process
from shared.runtime.recorder import Recorder
from shared.runtime.runner import StageRunner
from shared.runtime.slots import Slots
from shared.runtime.stage import Stage
from shared.runtime.streams.gate import Gate, mark_of
from shared.runtime.streams.groups import create_groups
from shared.runtime.streams.handover import HandOver
from shared.runtime.streams.intake import Intake
from shared.runtime.streams.janitor import Janitor
from shared.runtime.streams.leases import Leases
from shared.runtime.waits import StageWaits
from shared.runtime.worker import Worker
from shared.service.settings import RuntimeSettings


async def run_stage(
    process: Process,
    stage: Stage[Any, Any],
    settings: RuntimeSettings,
    canaries: Mapping[str, Canary] | None = None,
) -> None:
    """Work on the stage's streams until the process is told to stop, then drain.

    A dependency's health check is its canary, unless `canaries` has a better one.
    """
    process.metrics.begin_stage(stage.name)
    checks = process.health.checks
    all_canaries = {**checks, **(canaries or {})}
    worker = _worker(process, stage, settings, all_canaries)
    await create_groups(process.redis, stage.name)
    assert process.waits is not None
    process.waits.look = StageWaits(
        lambda: [*worker.breakers.waits, *worker.runner.waits], checks, all_canaries, worker.slots
    ).look
    process.health.is_ready = True
    await worker.run(process.stop)


def _worker(
    process: Process,
    stage: Stage[Any, Any],
    settings: RuntimeSettings,
    canaries: Mapping[str, Canary],
) -> Worker:
    name, pool, redis, metrics = stage.name, process.pool, process.redis, process.metrics
    consumer = Consumer(stage=name, name=process.consumer, lease=settings.lease)
    breakers = Breakers(canaries, metrics)
    rng = random.Random()  # noqa: S311 - spreads retries, guards nothing
    patience = Patience(settings.max_attempts)
    failures = Failures(name, patience, breakers, rng, stage.is_unavailable)
    leases = Leases(redis, consumer, settings.lease_renewal)
    return Worker(
        stage=name,
        runner=StageRunner(stage, Targets(pool), failures, settings.document_timeout),
        intake=Intake(
            process.reader,
            process.deployment,
            consumer,
            leases,
            _gate(process, name.next, settings),
        ),
        leases=leases,
        recorder=Recorder(Progress(pool, name, consumer.name), process.operations, metrics, name),
        handover=HandOver(redis, consumer, metrics),
        breakers=breakers,
        janitor=Janitor(redis, consumer),
        slots=Slots(settings.stage_concurrency),
        settings=settings,
        metrics=metrics,
        tracing=process.tracing,
    )


def _gate(process: Process, next_stage: StageName | None, settings: RuntimeSettings) -> Gate | None:
    if next_stage is None:
        return None
    mark = mark_of(next_stage, entries=settings.stream_entries, size=settings.stream_bytes)
    return Gate(process.redis, next_stage, mark)
