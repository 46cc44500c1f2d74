"""`Stage`: a server, the services of a case, their history, and the check at the end."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import cast

from eventbus import Event, EventService, Retry
from eventbus.settings import Settings
from tests.faults.harness.checker import Evidence, Measure, violations
from tests.faults.harness.ground import ApiRefusedError, Ground
from tests.faults.harness.history import Entry, History, What
from tests.faults.harness.load import Load
from tests.faults.harness.pace import pace
from tests.faults.harness.profile import NAIVE, bus, schedule
from tests.faults.harness.step import StepTaken
from tests.faults.harness.witness import Witness
from tests.faults.harness.worker import Work, Worker
from tests.waiting import comes_true

__all__ = ("Stage",)

DEFAULTS: dict[str, object] = {
    "emit_timeout": 10.0 if NAIVE else 30.0,
    "publish_timeout": 0.5,
    "grace": 5.0,
}
CALM = 40.0
QUICK = Retry(attempts=3, start=0.1, jitter="none")


class Stage:
    """Where one case plays."""

    def __init__(self, url: str, folder: Path, **login: object) -> None:
        self.url = url
        self.folder = folder
        self.history = History()
        self.witness = Witness(self.history)
        self.ground = Ground(url, **login)
        self.measures: list[Measure] = []
        self._listeners: dict[str, str] = {}
        self._serving: dict[str, bool] = {}
        self._workers: list[Worker] = []
        self._probes = 0

    def service(self, name: str = "mailer", *, url: str = "", **settings: object) -> EventService:
        """Return a service, not started, whose doings are written down."""
        all_settings = {**DEFAULTS, "nats_url": url or self.url, **settings}
        events = bus(name, Settings(**all_settings))  # type: ignore[arg-type]
        events.observe(self.witness.observe)
        return events

    def listen(
        self,
        events: EventService,
        name: str = "send",
        *,
        target: type[Event] | str = StepTaken,
        **options: object,
    ) -> None:
        """Give a service a listener that does what its events ask for."""
        settled: dict[str, object] = {"retry": QUICK, "ack_wait": 2.0, **options}
        listener = cast("Callable[..., object]", self.witness.listener(name))
        events.subscribe(target, listener, name=name, **settled)  # type: ignore[call-overload]
        self._listeners[name] = f"{events.name}__{name}"

    def load(self, events: EventService, **options: object) -> Load:
        """Return emitters for a service."""
        return Load(events, self.history, **options)  # type: ignore[arg-type]

    def worker(self, name: str = "w", *, url: str = "", **work: object) -> Worker:
        """Return a process with a service and a listener, not started."""
        given = Work(url=url or self.url, ledger=str(self.folder / f"{name}.jsonl"), **work)  # type: ignore[arg-type]
        worker = Worker(given, log=self.folder / f"{name}.log")
        self.history.follow(Path(given.ledger))
        if given.listener:
            self._listeners[given.listener] = f"{given.service}__{given.listener}"
        self._workers.append(worker)
        return worker

    async def emit(self, events: EventService, *steps: StepTaken) -> None:
        """Emit steps, all at once."""
        async with asyncio.TaskGroup() as group:
            for step in steps:
                group.create_task(self.witness.emit(events, step))

    async def schedule(self, events: EventService, due: Mapping[StepTaken, datetime]) -> None:
        """Have steps emitted at their times, not before."""
        for step in due:
            self.history.write(Entry(What.INVOKED, step.mark))
        await schedule(events, due)
        for step in due:
            self.history.write(Entry(What.STORED, step.mark))

    async def handled(self, *marks: str, listener: str = "send", seconds: float = 30) -> None:
        """Wait until a listener has handled events."""
        await self.history.until(
            lambda: set(marks) <= self.history.marks(What.EFFECT, listener=listener),
            f"{listener} handles {', '.join(marks[:3])}",
            seconds,
        )

    async def started(self, count: int) -> None:
        """Wait until so many workers have started."""
        await self.history.until(
            lambda: len(self.history.of(What.STARTED)) >= count, f"{count} workers start"
        )

    async def ready(self, events: EventService, seconds: float = CALM) -> None:
        """Wait until a service is ready (I8)."""

        async def is_ready() -> bool:
            return events.status().ready

        if not await comes_true(is_ready, seconds):
            raise AssertionError(f"I8: {events.name} isn't ready: {events.status().problems}")

    async def calm(self, events: EventService, seconds: float = CALM) -> None:
        """Wait until a service is ready, emits, and nothing is on its way to any listener."""
        await self.ready(events, seconds)
        self._probes += 1
        probe = StepTaken(thread="probe", number=self._probes)
        await self.witness.emit(events, probe)
        await self.drained(seconds)
        self._serving[events.name] = events.status().ready

    async def drained(self, seconds: float = CALM) -> None:
        """Wait until nothing is on its way to any listener."""
        if not await comes_true(self._is_drained, seconds):
            left = await self._backlog()
            raise AssertionError(f"I1: after {seconds:g} s there still is a backlog: {left}")
        self.history.refresh()

    async def check(
        self,
        *,
        removed: Collection[str] = (),
        ordered: Collection[str] = (),
        measures: Sequence[Measure] = (),
    ) -> None:
        """Judge all that happened by the invariants."""
        self.history.refresh()
        evidence = Evidence(
            history=self.history,
            stored=await self.ground.stored(),
            letters=await self.ground.letters(),
            listeners=tuple(self._listeners),
            backlog=await self._backlog(),
            removed=removed,
            ordered=ordered,
            measures=(*self.measures, *measures),
            serving=self._serving,
        )
        found = violations(evidence)
        assert not found, "\n".join(f"{one.invariant}: {one.problem}" for one in found)

    def measure(self, what: str, value: float, limit: float) -> None:
        """Have a value held against its limit at the end (I6)."""
        self.measures.append(Measure(what, value, limit))

    def took(self, what: str, seconds: float, limit: float) -> None:
        """Have a time held against its limit at the end; a busy machine may take longer."""
        self.measure(f"seconds {what}", seconds, limit * pace())

    async def close(self) -> None:
        """End the processes that still run."""
        for worker in self._workers:
            await asyncio.to_thread(worker.close)

    async def _is_drained(self) -> bool:
        try:
            return not any((await self._backlog()).values())
        except (ApiRefusedError, TimeoutError, OSError):
            return False

    async def _backlog(self) -> dict[str, int]:
        return {
            name: await self.ground.backlog(durable) for name, durable in self._listeners.items()
        }
