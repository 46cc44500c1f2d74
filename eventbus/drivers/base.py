"""The seam between the bus and a transport: `Driver`, `Consumer`, and what they exchange."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self, TypeAlias

from eventbus.attempts import AttemptLog
from eventbus.delivery import Delivery
from eventbus.drivers.asking import Asking
from eventbus.drivers.receipt import Receipt
from eventbus.drivers.room import DurableState, Room
from eventbus.drivers.schedules import Schedules
from eventbus.envelope import Message
from eventbus.limits import LimitLog
from eventbus.parked import ParkedLog
from eventbus.record import quick

__all__ = (
    "HEADROOM",
    "Connected",
    "Consumer",
    "ConsumerRecovered",
    "ConsumerSpec",
    "DelayedLost",
    "Deliver",
    "Disconnected",
    "Driver",
    "DriverSignal",
    "Features",
    "InOrder",
    "Notify",
    "Receipt",
    "Start",
    "Status",
    "TopologyChanged",
)

HEADROOM = 4096
"""Bytes of the server's payload limit kept free, so that a dead letter's headers still fit."""

Start: TypeAlias = str | int | datetime
"""Where a new durable begins: ``"new"``, ``"all"``, a stream sequence, or a time."""


@quick
@dataclass(frozen=True, slots=True)
class Features:
    """What a driver can do; asking for what it can't is refused at start."""

    durable: bool = False
    """Events outlive the process."""
    delay: bool = False
    """Emits and retries can wait on the server's side."""
    ordered: bool = False
    """Order by key holds across processes."""
    schedules: bool = False
    """Long retries and delayed emits wait without holding a pending place; where it is `durable`,
    they survive restarts."""
    stores: bool = True
    """Events are kept until their listeners have handled them: they are delivered again, become
    dead letters, and are known by their ids for a while."""
    immediate: bool = False
    """Listeners run before the publish returns, and what they raise is raised there."""
    states: bool = False
    """The last state event of each key is kept, and can be read."""
    atomic: bool = False
    """It stores a listener's mark and what it emits together, or nothing of it."""


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """What a subscription needs from the transport."""

    durable: str
    """``<service>__<listener>``."""
    service: str
    listener: str
    events: tuple[str, ...]
    """Event names and patterns, without those another one covers."""
    slots: int = 16
    """How many deliveries may be unsettled here at once."""
    ack_wait: float = 30.0
    start: Start = "new"
    ordered: bool = False
    """One process at a time, and each key's events one after the other."""
    kept: float | None = None
    """Seconds for which it stays while nobody works it; None for ever. One that doesn't stay for
    ever is a process's own: made when it starts to listen, and no orphan."""
    lasting: bool = True
    """It is kept on disk, and what it hasn't handled keeps its room."""
    retries: bool = True
    """It takes what comes back to its listener alone, besides the events."""
    beside: str = ""
    """The durable that it takes events from: it begins behind all that is stored where that one
    exists, and always at a sequence that can be told, see `DurableState.begin`."""

    @property
    def max_ack_pending(self) -> int:
        """How many may be unsettled in all processes; generous, since delayed retries count.

        Of an ordered one no more than the slots: whoever takes over has room then for all that
        its predecessor held.
        """
        return self.slots if self.ordered else max(1000, 10 * self.slots)


@dataclass(frozen=True, slots=True)
class Status:
    """Whether the data path works now; ``problems`` says what doesn't."""

    problems: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """No problem is known."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection stands, for the first time or again."""

    server: str
    version: str
    again: bool


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection was lost; the driver is working on it."""

    problem: str


@dataclass(frozen=True, slots=True)
class ConsumerRecovered:
    """A pull loop was in trouble and works again."""

    durable: str
    problem: str


@dataclass(frozen=True, slots=True)
class TopologyChanged:
    """The driver created or changed a stream or durable; ``change`` says what in words."""

    thing: str
    change: str


@dataclass(frozen=True, slots=True)
class DelayedLost:
    """An event that waited in this process isn't handled: its time came too late, or in vain."""

    name: str
    id: str
    at: datetime
    """Its time."""
    problem: str


DriverSignal: TypeAlias = (
    Connected | Disconnected | ConsumerRecovered | TopologyChanged | DelayedLost
)
Notify: TypeAlias = Callable[[DriverSignal], None]
Deliver: TypeAlias = Callable[[Delivery], None]
"""Takes a delivery at once, without waiting and without raising; called from a read loop."""


class InOrder(Protocol):
    """Takes the deliveries of an ordered consumer, and handles each key's by their sequence.

    It starts halted. Once no process holds an earlier event any more, it is told to resume, and
    it is halted again before another process can get one.
    """

    def take(self, delivery: Delivery) -> None:
        """Take a delivery at once and without waiting; handle it when not halted.

        That of an event which is in hand takes the place of the older one: a server delivers
        again what it thinks is lost.
        """
        ...

    def halt(self) -> None:
        """Begin with nothing more; what runs goes on."""
        ...

    async def hand_back(self) -> None:
        """Give back what was taken before the last halt and isn't running; never raises."""
        ...

    def resume(self) -> None:
        """Go on: all events that are unsettled anywhere are in our hands."""
        ...


class Consumer(Protocol):
    """A running consumer: keeps as many deliveries coming as there are free slots.

    A slot is taken from the pull request on, until the delivery is settled.
    """

    def limit(self, slots: int) -> None:
        """Take no more than so many at once from now on, 0 for none; what is in hand stays.

        Meanwhile it is as ready as before.
        """
        ...

    async def stop(self) -> None:
        """Ask for no more; what still arrives goes back to the server at once."""
        ...


class Driver(Protocol):
    """A transport. Entered, it is connected and supervises itself; left, it is closed."""

    @property
    def name(self) -> str:
        """How settings, receipts and metrics call it."""
        ...

    @property
    def features(self) -> Features:
        """What it can do."""
        ...

    @property
    def attempts(self) -> AttemptLog:
        """Where it keeps the failed attempts of deliveries."""
        ...

    @property
    def parked(self) -> ParkedLog:
        """Where it keeps the keys that ordered listeners have set aside.

        Raises:
            UnsupportedError: It lacks `Features.ordered`.
        """
        ...

    @property
    def limits(self) -> LimitLog:
        """Where the processes of a service agree on limits.

        Raises:
            UnsupportedError: It has no such place.
        """
        ...

    @property
    def schedules(self) -> Schedules:
        """What waits for its time.

        Raises:
            UnsupportedError: It lacks `Features.schedules`.
        """
        ...

    @property
    def asking(self) -> Asking:
        """Where questions are asked and answered.

        Raises:
            UnsupportedError: It carries none.
        """
        ...

    @property
    def room(self) -> Room | None:
        """What a janitor works on; None where no room has to be made, or we may not."""
        ...

    def watch(self, notify: Notify) -> None:
        """Tell ``notify`` of every later signal; call it before entering."""
        ...

    async def __aenter__(self) -> Self:
        """Connect, and check or create what is declared.

        Waits for a server that refuses connections. Raises at once, within 5 s, what waiting
        can't mend: NotAuthorizedError, CertificateError, NoJetStreamError, ServerTooOldError,
        TopologyError, SettingsError.
        """
        ...

    async def __aexit__(self, *exc: object) -> None:
        """Close; consumers must be stopped before. Takes at most a few seconds."""
        ...

    async def provision(self, consumers: Sequence[ConsumerSpec]) -> None:
        """Create, compare or check the durables, by the provisioning mode.

        Raises:
            TopologyError: One differs in a way that isn't ours to change.
        """
        ...

    async def report_orphans(self, declared: Sequence[ConsumerSpec]) -> None:
        """Tell by signal of each durable of this service that nobody declares any more.

        It goes on holding the events that it hasn't handled. Best effort: never raises.
        """
        ...

    def publish(
        self, message: Message, *, headroom: int = HEADROOM
    ) -> Coroutine[object, object, Receipt]:
        """Store a message and return once the server says that it is stored.

        Retried with the same id within the emit timeout. Cancelling it leaves the outcome
        unknown.

        Raises:
            PayloadTooLargeError, HeaderError, SubjectError: Before the wire; it can't be carried.
            NotConnectedError: There was no connection in all the time; it isn't stored.
            BackpressureError: At once; the stream is full.
            NoStreamError, NotAuthorizedError, PublishError: The server refused it.
            EmitUnknown: No answer in time; it may or may not be stored.
        """
        ...

    async def schedule(self, message: Message, *, at: datetime, holder: str) -> Receipt:
        """Store a message so that it is published to its subject at a time, not before.

        ``holder`` is the subject where it waits; scheduling there again replaces it. It survives
        restarts and the age limit of streams. Raises as `publish` does.
        """
        ...

    async def hold(self, message: Message) -> Receipt:
        """Store an event so that it is published to its subject once there is room for it.

        For what a listener emits while the stream is full: it is its work that makes room. Needs
        `Features.delay`. Raises as `publish` does.
        """
        ...

    async def stored(self, receipt: Receipt) -> Message | None:
        """Return the message that a receipt speaks of; None where it is gone."""
        ...

    async def consume(self, consumer: ConsumerSpec, deliver: Deliver) -> Consumer:
        """Start a consumer whose durable is provisioned; the driver owns its tasks."""
        ...

    async def consume_in_order(self, consumer: ConsumerSpec, taker: InOrder) -> Consumer:
        """Start an ordered consumer; it delivers while this is the one process that works it.

        Raises:
            UnsupportedError: It lacks `Features.ordered`.
        """
        ...

    async def remove(self, consumer: ConsumerSpec) -> None:
        """Delete a durable that isn't worked any more; what it hasn't handled it never gets.

        Raises:
            DriverError: It may still be there.
        """
        ...

    async def measure(self, durable: str) -> DurableState | None:
        """Return how far a durable is; None where there is none, or nothing like it.

        Raises:
            DriverError: It can't be asked now; NotAuthorizedError: we may never ask.
        """
        ...

    def status(self) -> Status:
        """Return what is known now; no I/O, safe to call from any thread."""
        ...
