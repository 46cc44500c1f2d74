"""A bus as one writes it in an afternoon on nats-py, so that each fault case has to fail on it.

No message id, so a repeated publish is stored twice. The ack comes before the work, each event
gets a task at once, nats-py's ``fetch`` and ``drain`` do the rest, and its reconnecting is trusted
with its defaults. What it leaves out (retries, dead letters, timeouts) is left out by most.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Self

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from eventbus import Event, Receipt
from eventbus.drivers.base import ConsumerSpec, Status
from eventbus.drivers.jetstream.credentials import login_of
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.event import spec_of
from eventbus.settings import Settings

__all__ = ("CANT_APPLY", "NaiveService")

_NO_VERSIONS = "a naive bus has no versions"
_NO_OUTBOX = "a naive bus has no outbox"
_NO_TIMES = "a naive bus has neither expiry nor schedules"
_NO_BATCHES = "a naive bus has no batches"
CANT_APPLY: Mapping[str, str] = {
    "test_f02_what_left_the_outbox_survives_a_power_cut": _NO_OUTBOX,
    "test_f03_with_the_inbox_killed_workers_have_each_effect_once": "a naive bus has no inbox",
    "test_f04_what_was_committed_is_stored_exactly_whoever_dies": _NO_OUTBOX,
    "test_f04_the_server_dies_under_writers_and_relays": _NO_OUTBOX,
    "test_f12_what_is_committed_goes_while_the_clock_jumps": _NO_OUTBOX,
    "test_f12_what_a_worker_s_wrong_clock_says_is_over_is_handled_all_the_same": _NO_TIMES,
    "test_f12_what_has_a_time_comes_by_the_server_s_clock_whatever_the_emitter_s_says": _NO_TIMES,
    "test_f22_an_event_that_is_published_again_is_dropped_within_the_window": _NO_OUTBOX,
    "test_f23_what_fits_is_handled_and_what_does_not_becomes_a_letter_with_both_versions": (
        _NO_VERSIONS
    ),
    "test_f23_a_version_newer_than_all_known_is_read_as_the_newest": _NO_VERSIONS,
    "test_f28_in_a_cluster_what_is_known_by_its_id_is_left_out_and_the_stream_goes_on": (
        _NO_BATCHES
    ),
    "test_f28_what_atomic_listeners_emit_is_stored_once_whoever_dies": _NO_BATCHES,
    "test_f28_what_atomic_listeners_emit_is_stored_once_where_the_server_dies": _NO_BATCHES,
}
"""Cases, by the name of their function, that say nothing about such a bus, and why."""

DRAIN_TIMEOUT = 5
"""Less than nats-py's 30 s, all of which each stop takes: so that all cases take minutes."""

_log = logging.getLogger(__name__)
Run = Callable[[Event, SimpleNamespace], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Listener:
    event: type[Event] | str
    run: Run
    spec: ConsumerSpec

    @property
    def subject(self) -> str:
        return f"events.{self.spec.events[0]}"


class NaiveService:
    """Has of `EventService` what the cases use, and none of its care."""

    def __init__(self, name: str, *, settings: Settings) -> None:
        self.name = name
        self.settings = settings
        self._listeners: list[_Listener] = []
        self._client = Client()
        self._tasks: set[asyncio.Task[None]] = set()

    def subscribe(self, event: type[Event] | str, listener: Run, /, **options: object) -> None:
        """Add a listener; of its options it knows the name, how many it fetches, and the wait."""
        wanted = event if isinstance(event, str) else spec_of(event).name
        spec = ConsumerSpec(
            durable=f"{self.name}__{options['name']}",
            service=self.name,
            listener=str(options["name"]),
            events=(wanted,),
            slots=int(str(options.get("concurrency", 16))),
            ack_wait=float(str(options.get("ack_wait", 30))),
        )
        self._listeners.append(_Listener(event, listener, spec))

    def observe(self, _observer: object) -> None:
        """Tell nobody: it has no signals."""

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    async def start(self) -> None:
        """Connect and listen; what it needs on the server is provisioned as a deployment would."""
        login = login_of(self.settings, self.name)
        self._client = await nats.connect(
            list(self.settings.servers),
            user=login.user,
            password=login.password,
            user_credentials=login.creds,
            tls=login.tls,
            drain_timeout=DRAIN_TIMEOUT,
        )
        async with JetStreamDriver(self.settings, service=self.name) as driver:
            await driver.provision([one.spec for one in self._listeners])
        for listener in self._listeners:
            self._spawn(self._listen(listener))

    async def stop(self, grace: float | None = None) -> None:
        """Stop fetching and drain."""
        for task in self._tasks:
            task.cancel()
        if not self._client.is_closed:
            await self._client.drain()

    def status(self) -> Status:
        """Say what nats-py says."""
        return Status(() if self._client.is_connected else ("not connected",))

    async def emit(
        self, event: Event | str, data: Mapping[str, object] | None = None, /, **options: object
    ) -> Receipt:
        """Publish, and again where there is no answer in time."""
        name = event if isinstance(event, str) else spec_of(type(event)).name
        payload = data if isinstance(event, str) else event.model_dump()
        deadline = time.monotonic() + self.settings.emit_timeout
        while True:
            try:
                ack = await self._client.jetstream().publish(
                    f"events.{name}",
                    json.dumps(payload).encode(),
                    timeout=self.settings.publish_timeout,
                    headers=options.get("headers"),  # type: ignore[arg-type]
                )
            except nats.errors.TimeoutError:
                if time.monotonic() > deadline:
                    raise
            else:
                return Receipt("", ack.stream, ack.seq)

    def later(self, event: Event, delay: float) -> None:
        """Emit after a while, from memory."""

        async def wait() -> None:
            await asyncio.sleep(delay)
            await self.emit(event)

        self._spawn(wait())

    async def _listen(self, listener: _Listener) -> None:
        spec = listener.spec
        subscription = await self._client.jetstream().pull_subscribe_bind(
            durable=spec.durable, stream="EVENTS"
        )
        while True:
            try:
                messages = await subscription.fetch(spec.slots, timeout=5)
            except nats.errors.TimeoutError:
                continue
            for message in messages:
                await message.ack()
                self._spawn(self._handle(listener, message))

    async def _handle(self, listener: _Listener, message: Msg) -> None:
        try:
            record = json.loads(message.data)
            kind = listener.event
            event = kind.model_validate(record) if not isinstance(kind, str) else record
            attempt = message.metadata.num_delivered
            await listener.run(event, SimpleNamespace(attempt=attempt, id=""))
        except Exception:  # noqa: BLE001 - as most do
            _log.exception("an event failed")

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)  # noqa: TID251 - naive is what it has to be
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
