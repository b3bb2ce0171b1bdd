"""The heart of every stage: read -> decode -> handle -> record -> hand over.

`_read` takes entries for free slots, `work` and `_process` are the way of one entry. Entries come
from streams/intake.py, runner.py runs the stage on them, recorder.py writes the outcomes, and
streams/handover.py has the atomic last step.
"""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Sequence

import structlog
from redis.exceptions import RedisError

from shared.pipeline.entries import Entry
from shared.pipeline.messages import Header, MalformedMessageError, NewerSchemaError, decode_header
from shared.pipeline.outcomes import Dead, Done, Emit, Outcome, Retry
from shared.pipeline.stages import StageName
from shared.pipeline.tracing import OFF, Tracing
from shared.runtime.faults.breaker import Breakers
from shared.runtime.faults.policy import Treatment, treatment_of
from shared.runtime.recorder import Recorder
from shared.runtime.runner import StageRunner
from shared.runtime.slots import Slots
from shared.runtime.stage import Document
from shared.runtime.streams.handover import HandOver, TooLargeError
from shared.runtime.streams.intake import Intake
from shared.runtime.streams.janitor import Janitor
from shared.runtime.streams.leases import Leases
from shared.service.errors import DrainingError
from shared.service.metrics import Metrics
from shared.service.settings import RuntimeSettings

log = structlog.get_logger()

_CANCEL_TIMEOUT = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Worker:
    """One consumer of one stage."""

    stage: StageName
    runner: StageRunner
    intake: Intake
    leases: Leases
    recorder: Recorder
    handover: HandOver
    breakers: Breakers
    janitor: Janitor
    slots: Slots
    settings: RuntimeSettings
    metrics: Metrics
    tracing: Tracing = OFF
    # Seconds that a quarantined entry keeps others from starting: its servers may be silent.
    longest_quarantine: float = 10.0

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then drain: finish what is in flight, give back the rest in
        time.
        """
        async with asyncio.TaskGroup() as group:
            keepers = [
                group.create_task(self.leases.keep(), name="leases"),
                group.create_task(self.breakers.recover(), name="breakers"),
                group.create_task(self.janitor.run(), name="janitor"),
            ]
            reader = group.create_task(self._read(group), name="reader")
            await stop.wait()
            self.slots.close()
            await self._drain(reader)
            for keeper in keepers:
                keeper.cancel()

    async def work(self, entry: Entry) -> None:
        """Take one entry through the stage. If its lease is lost, stop and change nothing."""
        with self.leases.hold(entry):
            try:
                header = decode_header(entry.header)
                if self._treatment(entry) is Treatment.SPLIT:
                    await self.handover.split(entry, header)
                else:
                    await self._process(entry, header)
            except NewerSchemaError as error:
                log.warning("Entry left to a newer worker", entry_id=entry.id, error=str(error))
                await self.leases.release(entry)
            except DrainingError:
                await self.leases.release(entry)
            except MalformedMessageError as error:
                await self.recorder.dead_letter(entry, str(error))
                await self.handover.pass_on(entry)

    async def _process(self, entry: Entry, header: Header) -> None:
        with self.tracing.batch(self.stage, entry.id, header) as trace:
            started = time.monotonic()
            documents = await self.recorder.begin(entry, header)
            outcomes = await self._handle(entry, header, documents)
            trace.note([document.ref for document in documents], outcomes)
            messages = await self.recorder.record(
                documents, outcomes, trace.header, entry.deliveries
            )
            try:
                is_ours = await self.handover.pass_on(entry, messages)
            except TooLargeError as error:
                await self._divide(entry, header, documents, error)
                return
            if is_ours:
                self._report(entry, header, outcomes, time.monotonic() - started)

    async def _handle(
        self, entry: Entry, header: Header, documents: Sequence[Document]
    ) -> Sequence[Outcome]:
        if self._treatment(entry) is not Treatment.DEAD_LETTER:
            return await self.runner.run(entry.id, header, documents)
        error = f"its worker crashed {entry.deliveries - 1} times while it was in flight"
        return [Dead("too_many_deliveries", error) for _ in documents]

    async def _divide(
        self, entry: Entry, header: Header, documents: Sequence[Document], error: TooLargeError
    ) -> None:
        """Give each document an entry of its own; a document that is alone is a dead letter."""
        if entry.documents > 1:
            await self.handover.split(entry, header)
            return
        dead = [Dead(error.code, error.reason, attempts=1) for _ in documents]
        await self.recorder.record(documents, dead, header, entry.deliveries)
        await self.handover.pass_on(entry)

    async def _read(self, group: asyncio.TaskGroup) -> None:
        while await self.slots.wait_free():
            if self.breakers.is_any_open and not await self.slots.unless_closed(
                self.breakers.wait_closed()
            ):
                return
            entries = await self.intake.take(
                self.slots.free, may_reclaim=self.slots.has_room_for_reruns
            )
            self._report_redelivered(entries)
            quarantined = [
                entry for entry in entries if self._treatment(entry) is Treatment.QUARANTINE
            ]
            for entry in entries:
                if entry not in quarantined:
                    is_rerun = self._treatment(entry) is Treatment.RERUN
                    self.slots.start(group, self._guard(entry), entry.id, reruns=is_rerun)
            await self._quarantine(group, quarantined)

    async def _quarantine(self, group: asyncio.TaskGroup, entries: Sequence[Entry]) -> None:
        """Run one entry alone: if it crashes this process, no other counts a delivery.

        Give back the others. Returns when it has ended, or been alone for long enough.
        """
        first = entries[:1] if self.slots.has_room_for_reruns else []
        for entry in entries[len(first) :]:
            await self.leases.release(entry)
        for entry in first:
            all_of_them = self.settings.stage_concurrency
            self.slots.start(group, self._work_alone(entry), entry.id, reruns=all_of_them)
            await self.slots.wait_alone()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.longest_quarantine):
                    await self.slots.wait_idle()

    async def _work_alone(self, entry: Entry) -> None:
        with self.leases.hold(entry):
            await self.leases.uncount(entry)
            await self.slots.wait_alone()
            if await self.leases.count(entry):
                await self._guard(entry)

    async def _guard(self, entry: Entry) -> None:
        """Contain a bug in the work on one entry: it stays pending, is reclaimed and counted."""
        try:
            with self.metrics.in_flight.labels(self.stage).track_inprogress():
                await self.work(entry)
        except Exception:
            log.exception("Entry failed", stage=self.stage, entry_id=entry.id)

    def _treatment(self, entry: Entry) -> Treatment:
        return treatment_of(entry.deliveries, entry.documents, self.settings.max_deliveries)

    async def _drain(self, reader: asyncio.Task[None]) -> None:
        try:
            async with asyncio.timeout(self.settings.drain_timeout):
                await asyncio.wait({reader})
                await self.slots.wait_idle()
        except TimeoutError:
            unfinished = self.leases.held
            log.warning("Drain timed out", stage=self.stage, entries=len(unfinished))
            await self.slots.cancel(_CANCEL_TIMEOUT)
            for entry in unfinished:
                await self.leases.release(entry)
        try:
            await self.intake.leave()
        except (RedisError, OSError) as error:
            log.warning("Consumer not deleted", stage=self.stage, error=str(error))

    def _report_redelivered(self, entries: Sequence[Entry]) -> None:
        for entry in (entry for entry in entries if entry.deliveries > 1):
            self.metrics.redeliveries.labels(self.stage).inc()
            log.warning(
                "Entry delivered again", stage=self.stage, entry_id=entry.id, stream=entry.stream,
                deliveries=entry.deliveries, documents=entry.documents,
            )  # fmt: skip

    def _report(
        self, entry: Entry, header: Header, outcomes: Sequence[Outcome], seconds: float
    ) -> None:
        self.metrics.batch_seconds.labels(self.stage).observe(seconds)
        for _ in outcomes:  # a document leaves a stage with its batch, not before
            self.metrics.document_seconds.labels(self.stage).observe(seconds)
        count = {
            kind: sum(isinstance(o, kind) for o in outcomes) for kind in (Emit, Done, Retry, Dead)
        }
        jobs = sorted({ref.job_id for ref in header.documents})
        log.info(
            "Batch handled",
            stage=self.stage,
            entry_id=entry.id,
            documents=len(outcomes),
            emitted=count[Emit],
            done=count[Done],
            retried=count[Retry],
            dead=count[Dead],
            duration_ms=seconds * 1000,
            jobs=jobs,
        )
