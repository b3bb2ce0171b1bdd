"""The heart of every stage: read -> decode -> handle -> record -> hand over.

`_read` takes entries for free slots, `work` and `_process` are the way of one entry. What is read comes from
intake.py, what an outcome means is in recorder.py, and the atomic last step is in handover.py.
"""

import asyncio
import dataclasses
import time
from collections.abc import Sequence

import structlog
from redis.exceptions import RedisError

from shared.pipeline.entries import Entry
from shared.pipeline.messages import Header, MalformedMessageError, NewerSchemaError, decode_header
from shared.pipeline.outcomes import Batch, Dead, Done, Emit, Outcome, Retry, Stage
from shared.pipeline.tracing import OFF, Tracing
from shared.runtime.faults.breaker import Breakers
from shared.runtime.faults.failures import Failures
from shared.runtime.faults.policy import Verdict, judge
from shared.runtime.recorder import Recorder
from shared.runtime.slots import Slots
from shared.runtime.streams.handover import HandOver
from shared.runtime.streams.intake import Intake
from shared.runtime.streams.janitor import Janitor
from shared.runtime.streams.leases import Leases
from shared.service.metrics import Metrics
from shared.service.settings import RuntimeSettings

log = structlog.get_logger()

_CANCEL_TIMEOUT = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Worker:
    """One consumer of one stage."""

    stage: Stage
    intake: Intake
    leases: Leases
    recorder: Recorder
    handover: HandOver
    failures: Failures
    breakers: Breakers
    janitor: Janitor
    slots: Slots
    settings: RuntimeSettings
    metrics: Metrics
    tracing: Tracing = OFF

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then drain: finish what is in work, give back what takes too long."""
        async with asyncio.TaskGroup() as group:
            keepers = [
                group.create_task(self.leases.keep(), name="leases"),
                group.create_task(self.breakers.mend(), name="breakers"),
                group.create_task(self.janitor.run(), name="janitor"),
            ]
            reader = group.create_task(self._read(group), name="reader")
            await stop.wait()
            self.slots.close()
            await self._drain(reader)
            for keeper in keepers:
                keeper.cancel()

    async def work(self, entry: Entry) -> None:
        """The way of one entry through the stage. Left early, with nothing changed, if its lease is lost."""
        with self.leases.hold(entry):
            try:
                header = decode_header(entry.header)
                if self._judge(entry) is Verdict.SPLIT:
                    await self.handover.split(entry, header)
                else:
                    await self._process(entry, header)
            except NewerSchemaError as error:
                log.warning("Entry left to a newer worker", entry_id=entry.id, error=str(error))
                await self.leases.release(entry)
            except MalformedMessageError as error:
                await self.recorder.bury(entry, str(error))
                await self.handover.pass_on(entry, None)

    async def _process(self, entry: Entry, header: Header) -> None:
        with self.tracing.batch(self.stage.name, entry.id, header) as trace:
            started = time.monotonic()
            batch = await self.recorder.begin(entry, header)
            outcomes = await self._blame(batch, await self._handle(entry, batch))
            trace.note(batch.works, outcomes)
            message = await self.recorder.record(batch, outcomes, trace.header, entry.deliveries)
            if await self.handover.pass_on(entry, message):
                self._report(entry, outcomes, time.monotonic() - started)

    async def _read(self, group: asyncio.TaskGroup) -> None:
        while await self.slots.wait_free():
            if self.breakers.is_any_open and not await self.slots.unless_closed(self.breakers.wait_closed()):
                return
            entries = await self.intake.take(self.slots.free)
            self._report_redelivered(entries)
            suspects = [entry for entry in entries if self._judge(entry) is Verdict.RUN_ALONE]
            for entry in entries:
                if entry not in suspects:
                    self.slots.start(group, self._guard(entry), name=entry.id)
            # Each suspect has a life of its own: one that kills this process must not count against the others.
            for entry in suspects[1:]:
                await self.leases.release(entry)
            for entry in suspects[:1]:
                self.slots.start(group, self._work_alone(entry), name=entry.id)
                await self.slots.wait_idle()

    async def _work_alone(self, entry: Entry) -> None:
        with self.leases.hold(entry):
            await self.leases.uncount(entry)
            await self.slots.wait_alone()
            if await self.leases.count(entry):
                await self._guard(entry)

    async def _guard(self, entry: Entry) -> None:
        """One entry's bug is not the worker's end: the entry stays pending, is reclaimed and counted."""
        try:
            with self.metrics.in_flight.labels(self.stage.name).track_inprogress():
                await self.work(entry)
        except Exception:
            log.exception("Entry failed", stage=self.stage.name, entry_id=entry.id)

    async def _handle(self, entry: Entry, batch: Batch) -> list[Outcome]:
        if self._judge(entry) is Verdict.DEAD:
            error = f"its worker died {entry.deliveries - 1} times while it was in work"
            return [Dead("too_many_deliveries", error) for _ in batch.works]
        if not batch.works:
            return []
        try:
            async with self.breakers.time_limit(self.settings.indexing_job_timeout):
                return await self.stage.handle(batch)
        except Exception as error:
            return [self.failures(work, error) for work in batch.works]

    async def _blame(self, batch: Batch, outcomes: list[Outcome]) -> list[Outcome]:
        """Let a dependency that is away cost nothing, and a document that breaks a healthy one an attempt."""
        blamed = {o.dependency for o in outcomes if isinstance(o, Retry) and o.dependency is not None}
        well = blamed - await self.breakers.are_away(blamed)
        judged = [
            self.failures.own_fault(work, o) if isinstance(o, Retry) and o.is_suspicious and o.dependency in well else o
            for work, o in zip(batch.works, outcomes, strict=True)
        ]
        complaint = self.failures.epidemic(batch.works, judged)
        if complaint is None:
            return judged
        self.breakers.distrust(complaint)
        return [self.failures.acquit(outcome, complaint) for outcome in judged]

    def _judge(self, entry: Entry) -> Verdict:
        return judge(entry.deliveries, entry.documents, self.settings.max_deliveries)

    async def _drain(self, reader: asyncio.Task[None]) -> None:
        try:
            async with asyncio.timeout(self.settings.drain_timeout):
                await asyncio.wait({reader})
                await self.slots.wait_idle()
        except TimeoutError:
            unfinished = self.leases.held
            log.warning("Drain timed out", stage=self.stage.name, entries=len(unfinished))
            await self.slots.cancel(_CANCEL_TIMEOUT)
            for entry in unfinished:
                await self.leases.release(entry)
        try:
            await self.intake.leave()
        except (RedisError, OSError) as error:
            log.warning("Consumer not deleted", stage=self.stage.name, error=str(error))

    def _report_redelivered(self, entries: Sequence[Entry]) -> None:
        for entry in (entry for entry in entries if entry.deliveries > 1):
            self.metrics.redeliveries.labels(self.stage.name).inc()
            log.warning(
                "Entry delivered again", stage=self.stage.name, entry_id=entry.id, stream=entry.stream,
                deliveries=entry.deliveries, documents=entry.documents,
            )  # fmt: skip

    def _report(self, entry: Entry, outcomes: list[Outcome], seconds: float) -> None:
        self.metrics.batch_seconds.labels(self.stage.name).observe(seconds)
        for _ in outcomes:  # a document leaves a stage with its batch, not before
            self.metrics.document_seconds.labels(self.stage.name).observe(seconds)
        count = {kind: sum(isinstance(o, kind) for o in outcomes) for kind in (Emit, Done, Retry, Dead)}
        jobs = sorted({ref.job_id for ref in decode_header(entry.header).documents})
        log.info(
            "Batch handled", stage=self.stage.name, entry_id=entry.id, documents=len(outcomes), emitted=count[Emit],
            done=count[Done], retried=count[Retry], dead=count[Dead], duration_ms=seconds * 1000, jobs=jobs,
        )  # fmt: skip
