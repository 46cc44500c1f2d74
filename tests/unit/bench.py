"""`Bench`: a dispatcher, one listener, and deliveries to try them with."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from eventbus import codec, deadletter
from eventbus.correlation import Scope
from eventbus.declaration import subscription
from eventbus.dispatch import Dispatcher
from eventbus.drivers.base import Receipt
from eventbus.emission import Emitter, Publishing
from eventbus.envelope import Envelope, Message
from eventbus.event import Event
from eventbus.headers import lowered
from eventbus.registry import Registry
from eventbus.retry import Retry
from eventbus.subject import Subjects
from eventbus.telemetry.signals import (
    Happened,
    Observers,
    Returned,
    Settled,
    Stuck,
)
from eventbus.wiring import Wiring
from tests.unit.conftest import (
    START,
    Afterwards,
    FakeDelivery,
    ReadableDelivery,
    RecordingDriver,
    StillClock,
)

if TYPE_CHECKING:
    from eventbus.middleware.base import EmitOptions

SUBJECTS = Subjects()
RETRY = "events-retry.mail.send."
DLQ = "publish events-dlq.mail.send.user.created"


class UserCreated(Event, name="user.created", key="user_id"):
    user_id: str


class UserCreatedV2(Event, name="user.created", version=2, key="user_id"):
    user_id: str


class EmailSent(Event, name="email.sent"):
    to: str


@dataclass
class Bench:
    """A dispatcher of listener ``send`` of service ``mail``, and what it does to a delivery."""

    driver: RecordingDriver
    clock: StillClock
    told: list[Happened] = field(default_factory=list)
    registry: Registry = field(default_factory=Registry)
    target: type[Event] | str = UserCreated
    middleware: tuple[Any, ...] = ()
    chance: float = 0.5
    is_short: bool = False
    """Deliveries may take the shortcut."""

    def delivery(self, message: Message | None = None, **changes: Any) -> FakeDelivery:
        message = arriving() if message is None else message
        kind = ReadableDelivery if self.is_short else FakeDelivery
        return kind(message, journal=self.driver.journal, **changes)

    def dispatcher(self, listener: Callable[..., Awaitable[None]], **options: Any) -> Dispatcher:
        given: Any = {"name": "send", **options}
        one = subscription("mail", self.target, listener, given)
        one.register(self.registry)
        observers = Observers([_raise, self.told.append])
        emitter = Emitter(
            Publishing(
                driver=self.driver,
                subjects=SUBJECTS,
                source="mail",
                clock=self.clock,
                observe=observers,
                middleware=(),
            )
        )

        async def emit(event: Any, _data: Any = None, /, **given: Any) -> Receipt:
            options: EmitOptions = given  # type: ignore[assignment]
            return await emitter.emit(event, options)

        return Dispatcher(
            one,
            Wiring(
                driver=self.driver,
                registry=self.registry,
                subjects=SUBJECTS,
                observe=observers,
                clock=self.clock,
                emit=emit,
                middleware=self.middleware,
                retry=Retry(attempts=3, start=2, jitter="none"),
                park_after=30.0,
                chance=lambda: self.chance,
            ),
        )

    async def handle(
        self,
        listener: Callable[..., Awaitable[None]],
        delivery: FakeDelivery | None = None,
        **options: Any,
    ) -> Settled | Returned | Stuck:
        """Dispatch a delivery and return the record of how it ended; there must be one."""
        await self.run(self.dispatcher(listener, **options), delivery or self.delivery())
        (ending,) = (one for one in self.told if isinstance(one, Settled | Returned | Stuck))
        self.told.clear()
        return ending

    async def run(self, dispatcher: Dispatcher, delivery: FakeDelivery) -> None:
        """Dispatch a delivery, as a worker does where it may take the shortcut."""
        if not self.is_short:
            await dispatcher(delivery)
            return
        aftermath = Afterwards()
        rest = dispatcher.begin(delivery, aftermath)
        if rest is not None:
            await rest
        for one in aftermath.left:
            await one
        assert aftermath.open == 0

    def letter(self) -> deadletter.Failure:
        """Return what the one dead letter says."""
        (message,) = self.driver.published
        return deadletter.read(message)


def _raise(_: Happened) -> None:
    raise RuntimeError("an observer that fails changes nothing")


def arriving(event: Event | None = None, subject: str = "", **headers: str) -> Message:
    """Return a message as a consumer hands it over."""
    event = event or UserCreated(user_id="u-1")
    scope = Scope("c-1", "id-0")
    envelope = Envelope.of(event, source="user", time=START, id="id-1", scope=scope)
    message = codec.encode(envelope, subject or SUBJECTS.event(envelope.name))
    extra = {name.replace("_", "-"): value for name, value in headers.items()}
    return replace(message, headers={**lowered(message.headers), **extra})


async def welcome(event: UserCreated) -> None:
    """Do what is to be done."""


def raising(error: BaseException) -> Callable[..., Awaitable[None]]:
    """Return a listener that raises."""

    async def send(event: UserCreated) -> None:
        raise error

    return send
