"""`PullConsumer`: keeps as many deliveries coming as there are free slots, through every fault.

nats-py's ``fetch`` loses statuses and requests (T2 to T5). Here each pull request carries its
number and size in its reply subject, idle heartbeats tell that it is alive, and every status of
the server is answered.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count

from eventbus.drivers.base import ConsumerRecovered, ConsumerSpec, Deliver, Notify
from eventbus.drivers.jetstream.api import CONSUMER_NOT_FOUND, STREAM_NOT_FOUND, Api, ApiError
from eventbus.drivers.jetstream.connection import Connection, pause_after
from eventbus.drivers.jetstream.link import Link
from eventbus.drivers.jetstream.message import (
    JetStreamDelivery,
    Lease,
    Place,
    nak_body,
    place_of,
)
from eventbus.drivers.jetstream.progress import Progress
from eventbus.drivers.jetstream.topology import Topology
from eventbus.drivers.jetstream.wire import Raw, Subscription
from eventbus.errors import DriverError, EventBusError, NotConnectedError

__all__ = ("Outside", "PullConsumer")

HEARTBEAT = 2.0
SILENCE = 2.5 * HEARTBEAT
"""A pull request of which nothing is heard for so long is lost."""
EXPIRES = 30.0
LOOK_EVERY = 10.0
TROUBLE = 5.0
"""Trouble that lasts longer than this is a problem of the service."""
DRAIN_PATIENCE = 0.5
MISSING_AFTER = 3
"""So many unanswered pulls make us ask whether the durable is still there."""


@dataclass(frozen=True, slots=True)
class Outside:
    """What a consumer works with, beside its own spec."""

    connection: Connection
    api: Api
    topology: Topology
    notify: Notify
    stream: str
    lease: Lease
    """With the consumer's own ack wait."""


class PullConsumer:
    """One consumer; `run` it in a task."""

    def __init__(self, spec: ConsumerSpec, deliver: Deliver, outside: Outside) -> None:
        self._spec = spec
        self._deliver = deliver
        self._outside = outside
        self._lease = replace(outside.lease, ack_wait=spec.ack_wait)
        self._progress = Progress(outside.stream, spec.durable)
        self._pull_subject = f"$JS.API.CONSUMER.MSG.NEXT.{outside.stream}.{spec.durable}"
        self._held: dict[int, JetStreamDelivery] = {}
        self._taken = 0
        self._back: list[str] = []
        self._wake = asyncio.Event()
        self._stopping = False
        self._stopped = asyncio.Event()
        self._subscription: Subscription | None = None
        self._trouble = Trouble(spec.durable)
        self._reset()
        self._epoch = 0
