"""`JetStreamDriver`: the parts of this package behind `eventbus.drivers.base.Driver`."""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Sequence,
)
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import datetime
from itertools import count
from typing import Self

from eventbus.attempts import AttemptLog
from eventbus.drivers.abilities import is_state
from eventbus.drivers.asking import Asking
from eventbus.drivers.atomic import Mark
from eventbus.drivers.base import (
    HEADROOM,
    Consumer,
    ConsumerSpec,
    Deliver,
    Features,
    InOrder,
    Receipt,
    Status,
)
from eventbus.drivers.jetstream import api as codes
from eventbus.drivers.jetstream import bulk
from eventbus.drivers.jetstream.admin import Admin, Reply, replies
from eventbus.drivers.jetstream.api import Api, ApiError, translated
from eventbus.drivers.jetstream.asking import CoreAsking
from eventbus.drivers.jetstream.attempt_log import KeyValueAttempts
from eventbus.drivers.jetstream.batch import Batches
from eventbus.drivers.jetstream.bucket import Bucket
from eventbus.drivers.jetstream.commits import Commits
from eventbus.drivers.jetstream.connection import Connection, pause_after
from eventbus.drivers.jetstream.consumer import Outside, PullConsumer
from eventbus.drivers.jetstream.controls import Controls
from eventbus.drivers.jetstream.letterbox import Letterbox
from eventbus.drivers.jetstream.limit_log import KeyValueLimits
from eventbus.drivers.jetstream.message import Lease
from eventbus.drivers.jetstream.parked_log import KeyValueParked
from eventbus.drivers.jetstream.pinned import PinnedConsumer
from eventbus.drivers.jetstream.pipe import PublishPipe
from eventbus.drivers.jetstream.publisher import DRIVER, Publisher
from eventbus.drivers.jetstream.room import JetStreamRoom, state_of
from eventbus.drivers.jetstream.schedules import JetStreamSchedules, schedule_of, target_of
from eventbus.drivers.jetstream.states import KeptStates
from eventbus.drivers.jetstream.streams import NOT_ASKED
from eventbus.drivers.jetstream.topology import Topology
from eventbus.drivers.room import DurableState, Room
from eventbus.drivers.schedules import Schedules
from eventbus.drivers.watched import Watched
from eventbus.envelope import Message
from eventbus.errors import (
    BackpressureError,
    DriverError,
    EventBusError,
    NotConnectedError,
    UnsupportedError,
)
from eventbus.limits import LimitLog
from eventbus.parked import ParkedLog
from eventbus.settings import Settings

__all__ = ("JetStreamDriver",)

_GONE = (codes.CONSUMER_NOT_FOUND, codes.STREAM_NOT_FOUND)
REMOVAL = 1.0
"""Seconds that the deletion of a durable may take: a stop waits for it."""


class JetStreamDriver(Watched):
    """Events on NATS JetStream.

    At least once: an event is acknowledged to the emitter once the stream has it, and delivered
    until it is acknowledged. It recovers from every fault of the broker by itself, and `status`
    says meanwhile what is wrong. Enter it and leave it in the same task.
    """

    def __init__(self, settings: Settings, *, service: str) -> None:
        super().__init__()
        self._settings = settings
        self._subjects = settings.subjects
        self._service = service
        self._server = NOT_ASKED
        self._tasks = asyncio.TaskGroup()
        self._consumers: dict[str, PullConsumer] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._connection = Connection(settings, service, self.notify)
        self._api = Api(self._connection.request)
        self._topology = Topology(self._api, settings, self.notify)
        self._publisher = Publisher(self._connection, self._api, settings)
        self.pipe = PublishPipe(self._publisher, self._refused)
        """What takes many events at once."""
        self._asking = CoreAsking(self._connection, self._tasks.create_task)
        bucket = Bucket(self._api, settings.subjects.attempts_bucket)
        self._attempts = KeyValueAttempts(bucket, self._publisher)
        self.admin = Admin(self._api, settings, self._replies)
        """What an operator may ask."""
        self._parked = KeyValueParked(bucket, self.admin, self._publisher)
        self._limits = KeyValueLimits(bucket, self._connection)
        self.letterbox = Letterbox(self._api, self.admin, self._publisher, settings.subjects)
        """The dead letters, as an operator works them."""
        self.controls = Controls(self._api, settings.subjects.stream)
        """The durables, as an operator works them."""
        self._states = KeptStates(self.admin, self._publisher, settings.subjects, settings.max_age)
        self._room = JetStreamRoom(
            self._api, self.admin, self._connection, self._publisher, settings
        )
        stored, held = (
            Batches(self._connection, self._publisher, self.admin, settings, stream)
            for stream in (settings.subjects.stream, settings.subjects.later_stream)
        )
        self._commits = Commits(
            stored,
            held,
            settings.subjects,
            explained=self._refused,
            waits=lambda: self._room.check_later if self.features.delay else None,
        )
        self._schedules = JetStreamSchedules(
            self._api, self.admin, self._publisher, settings, self._room.check_later
        )

    @property
    def name(self) -> str:
        """How settings, receipts and metrics call it."""
        return DRIVER

    @property
    def features(self) -> Features:
        """What it can do."""
        schedules = "schedules" not in self._server.missing
        return Features(
            durable=True,
            delay=schedules,
            ordered=True,
            schedules=schedules,
            states=True,
            atomic=True,
        )

    @property
    def attempts(self) -> AttemptLog:
        """Where it keeps the failed attempts of deliveries."""
        return self._attempts

    @property
    def parked(self) -> ParkedLog:
        """Where it keeps the keys that ordered listeners have set aside."""
        return self._parked

    @property
    def limits(self) -> LimitLog:
        """Where the processes of a service agree on limits."""
        return self._limits

    @property
    def schedules(self) -> Schedules:
        """What waits for its time.

        Raises:
            UnsupportedError: This server can't hand on what its schedules publish.
        """
        if not self.features.schedules:
            raise UnsupportedError(
                driver=self.name,
                feature=f"schedules with nats-server {self._server.version}",
                remedy="use nats-server 2.14 or newer",
            )
        return self._schedules

    @property
    def asking(self) -> Asking:
        """Where questions are asked and answered."""
        return self._asking

    @property
    def room(self) -> Room | None:
        """What a janitor works on; None where we may not change what is on the server."""
        return self._room if self._settings.provision == "auto" else None

    async def __aenter__(self) -> Self:
        """Connect, and check or create the streams; see `eventbus.drivers.base.Driver`."""
        async with AsyncExitStack() as undo:
            await self._tasks.__aenter__()
            undo.push_async_callback(self._close)
            await self._connection.open()
            self._keeper = self._tasks.create_task(self._connection.run())
            await self._patiently(self._negotiate)
            await self._patiently(self._topology.ensure_streams)
            undo.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close; within a second, also where the server doesn't answer."""
        await self._close()

    async def provision(self, consumers: Sequence[ConsumerSpec]) -> None:
        """Create, compare or check the durables, by the provisioning mode.

        Raises:
            TopologyError: One differs in a way that isn't ours to change.
        """
        await self._patiently(lambda: self._topology.ensure_consumers(consumers))

    async def report_orphans(self, declared: Sequence[ConsumerSpec]) -> None:
        """Tell by signal of each durable of this service that nobody declares any more."""
        # A service with the least privilege may not list durables.
        if declared and self._settings.provision != "off":
            with suppress(EventBusError):
                await self._topology.orphans(self._service, declared)

    def publish(
        self, message: Message, *, headroom: int = HEADROOM
    ) -> Coroutine[object, object, Receipt]:
        """Store a message and return once the server says that it is stored.

        Raises:
            NotConnectedError: There was no connection in all the emit timeout: it isn't stored.
            DriverError: As `eventbus.drivers.base.Driver.publish`.
            HeaderError, SubjectError: Before the wire; it can't be carried.
        """
        if is_state(message, self._subjects):
            return self._publish_state(message, headroom)
        return self._publisher.publish(message, headroom=headroom, refused=self._refused)

    async def _publish_state(self, message: Message, headroom: int) -> Receipt:
        receipt = await self._publisher.publish(message, headroom=headroom, refused=self._refused)
        await self._states.keep(message, receipt)
        return receipt

    async def _refused(self, error: BackpressureError) -> BackpressureError:
        return error if self.room is None else await self._room.explained(error)

    async def state(self, name: str, key: str) -> Message | None:
        """Return the last state event of a key as it was published; None where there is none."""
        return await self._states.last(name, key)

    def states(self, name: str) -> AsyncIterator[Message]:
        """Yield the last state event of each key."""
        return self._states.all(name)

    @property
    def bulk(self) -> bool:
        """Whether the server has fast ingest; where it may not be asked, it isn't used."""
        return self._server is not NOT_ASKED and "fast ingest" not in self._server.missing

    async def publish_in_order(self, messages: Sequence[Message]) -> int:
        """Store messages in their order; see `eventbus.drivers.base.InBulk`."""
        link = self._connection.link
        carried = self._publisher.carried(messages)
        if link is None or len(carried) < bulk.LEAST:
            return 0
        return await bulk.ingest(link, carried, within=self._settings.emit_timeout)

    async def marked(self, subject: str) -> Mark | None:
        """Return the last mark on a subject; see `eventbus.drivers.atomic.Atomic`."""
        return await self._commits.marked(subject)

    async def commit(self, mark: Mark, messages: Sequence[Message]) -> Sequence[Receipt]:
        """Store a mark and messages, or nothing; see `eventbus.drivers.atomic.Atomic`."""
        return await self._commits.commit(mark, messages)

    async def schedule(self, message: Message, *, at: datetime, holder: str) -> Receipt:
        """Store a message so that it is published to its subject at a time, not before.

        Raises as `publish` does.
        """
        subjects = self._settings.subjects
        return await self._wait(schedule_of(message, subjects, at=at, holder=holder))

    async def hold(self, message: Message) -> Receipt:
        """Store an event so that it is published to its subject once there is room for it.

        Raises as `publish` does.
        """
        subject = target_of(self._settings.subjects, message.subject)
        return await self._wait(replace(message, subject=subject))

    async def stored(self, receipt: Receipt) -> Message | None:
        """Return the message that a receipt speaks of; None where it is gone."""
        return await self.admin.message(receipt.stream, receipt.sequence)

    async def consume(self, consumer: ConsumerSpec, deliver: Deliver) -> Consumer:
        """Start a consumer whose durable is provisioned; the driver owns its tasks."""
        return self._started(consumer.durable, PullConsumer(consumer, deliver, self._outside()))

    async def consume_in_order(self, consumer: ConsumerSpec, taker: InOrder) -> Consumer:
        """Start an ordered consumer; it delivers while this is the one process that works it."""
        return self._started(consumer.durable, PinnedConsumer(consumer, taker, self._outside()))

    def _started(self, durable: str, consumer: PullConsumer) -> Consumer:
        consumer.start(self._tasks)
        self._consumers[durable] = consumer
        return consumer

    async def remove(self, consumer: ConsumerSpec) -> None:
        """Delete a durable that isn't worked any more.

        Raises:
            DriverError: It may still be there.
        """
        verb = f"CONSUMER.DELETE.{self._settings.subjects.stream}.{consumer.durable}"
        self._consumers.pop(consumer.durable, None)
        with translated(f"durable {consumer.durable}"):
            try:
                await self._api.call(verb, timeout=REMOVAL)
            except ApiError as exc:
                if exc.err_code not in _GONE:
                    raise

    async def measure(self, durable: str) -> DurableState | None:
        """Return how far a durable is; None where there is none.

        Raises:
            DriverError: It can't be asked now; NotAuthorizedError: we may never ask.
        """
        with translated(f"durable {durable}"):
            try:
                verb = f"CONSUMER.INFO.{self._settings.subjects.stream}.{durable}"
                return state_of(await self._api.call(verb))
            except ApiError as exc:
                if exc.err_code in _GONE:
                    return None
                raise

    def status(self) -> Status:
        """Return what is known now; no I/O, safe to call from any thread."""
        connection = self._connection.problem
        if connection is not None:
            return Status((connection,))
        problems = (one.problem for one in list(self._consumers.values()))
        return Status(tuple(problem for problem in problems if problem is not None))

    async def _wait(self, message: Message) -> Receipt:
        """Store what has to wait, where not too much does."""
        self._room.check_later(message)
        return await self._publisher.publish(message, headroom=HEADROOM)

    async def _negotiate(self) -> None:
        self._server = await self._topology.ensure_server()

    def _outside(self) -> Outside:
        settings = self._settings
        return Outside(
            connection=self._connection,
            api=self._api,
            topology=self._topology,
            notify=self.notify,
            stream=settings.subjects.stream,
            lease=Lease(self._connection, 0.0, settings.emit_timeout, settings.publish_timeout),
            recreates=settings.provision == "auto",
        )

    async def _patiently(self, step: Callable[[], Awaitable[object]]) -> None:
        """Take a step of the start again while the server can't be asked."""
        for failures in count():
            try:
                await step()
            except DriverError as exc:
                if not exc.retryable:
                    raise
                await asyncio.sleep(pause_after(failures))
            else:
                return

    async def _replies(self, subject: str, payload: bytes) -> AsyncGenerator[Reply, None]:
        link = self._connection.link
        if link is None:
            raise NotConnectedError(self._connection.problem or "not connected to NATS")
        async for reply in replies(link, subject, payload):
            yield reply

    async def _close(self) -> None:
        self._connection.release()
        for consumer in self._consumers.values():
            await consumer.stop()
        if self._keeper is not None:
            self._keeper.cancel()
        try:
            # Without the exception that ends the caller's block: it isn't one of our tasks'.
            await self._tasks.__aexit__(None, None, None)
        finally:
            await self._connection.close()
