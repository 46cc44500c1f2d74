"""Kinds of events, what classes say for their listeners, tags and metadata."""

import copy
import json
from datetime import timedelta
from typing import Any

import pytest

from eventbus import codec
from eventbus.declaration import subscription
from eventbus.envelope import Envelope
from eventbus.errors import DeclarationError, HeaderError, InvalidEventError, NotConnectedError
from eventbus.event import Data, Event, spec_of
from eventbus.kinds import DomainEvent, NotificationEvent, StateEvent
from eventbus.registry import Registry
from eventbus.retry import Retry
from eventbus.roster import Roster
from eventbus.service import EventService
from eventbus.settings import Settings
from tests.unit.conftest import START, RecordingDriver, StillClock
from tests.unit.test_emission import emitter


class Address(Data):
    city: str


class CartEmptied(DomainEvent, name="cart.emptied"):
    cart_id: str


class CartMerged(DomainEvent, name="cart.merged", driver="memory", tags=("cart",)):
    cart_id: str


class OrderShipped(NotificationEvent, name="order.shipped"):
    order_id: str
    parts: tuple[int, ...] = ()
    at: timedelta | None = None


class UserProfile(StateEvent, name="user.profile_changed", key="user_id"):
    user_id: str
    address: Address


class MailSent(
    Event, name="mail.sent", queue="emails", timeout="30s", delay=5, tries=3, can_unqueue=False
):
    to: str


class MailBounced(Event, name="mail.bounced", queue="emails", timeout=60):
    to: str


def envelope(event: Event, **options: Any) -> Envelope:
    return Envelope.of(event, source="shop", time=START, **options)


def test_a_base_class_says_what_an_event_is_for() -> None:
    kinds = {one: spec_of(one).kind for one in (CartEmptied, OrderShipped, UserProfile, MailSent)}

    assert list(kinds.values()) == ["domain", "notification", "state", "event"]


def test_a_domain_event_stays_in_its_process_unless_its_class_says_otherwise() -> None:
    drivers = [spec_of(one).driver for one in (CartEmptied, CartMerged, OrderShipped, UserProfile)]

    assert drivers == ["sync", "memory", None, None]


def test_the_kind_is_on_the_wire_and_comes_back() -> None:
    registry = Registry()
    registry.register(CartEmptied)
    sent = codec.encode(envelope(CartEmptied(cart_id="c-1")), "events.cart.emptied")

    read = codec.decode(sent, "cart.emptied", registry, received=START)

    assert sent.headers["ce-kind"] == "domain"
    assert read.kind == "domain"


@pytest.mark.parametrize("kind", [Address, dict[str, str], list[Address], Address | None])
def test_a_notification_that_is_not_thin_is_refused(kind: object) -> None:
    with pytest.raises(DeclarationError, match="'about' holds more than a plain value"):
        type(NotificationEvent)(
            "Odd", (NotificationEvent,), {"__annotations__": {"about": kind}}, name="odd.sent"
        )


def test_a_state_without_a_key_is_refused() -> None:
    with pytest.raises(DeclarationError, match="kept by key"):

        class Odd(StateEvent, name="odd.changed"):
            user_id: str


@pytest.mark.parametrize(
    ("keywords", "problem"),
    [
        ({"queue": "e mails"}, "isn't a queue name"),
        ({"delay": -1}, "isn't a duration"),
        ({"delay": "soon"}, "isn't a duration"),
        ({"timeout": 0}, "leaves its listeners no time"),
        ({"tries": 0}, "tries=0"),
        ({"tries": True}, "tries=True"),
        ({"can_unqueue": "no"}, "can_unqueue='no'"),
        ({"kind": "domain"}, "no class keyword 'kind'"),
    ],
    ids=str,
)
def test_what_no_listener_could_take_over_is_refused(
    keywords: dict[str, Any], problem: str
) -> None:
    with pytest.raises(DeclarationError, match=problem):
        type(Event)("Odd", (Event,), {}, name="odd.sent", **keywords)


async def listen(event: Event) -> None: ...


def test_a_listener_takes_over_what_its_event_says_unless_it_says_otherwise() -> None:
    taken = subscription("shop", MailSent, listen, {})
    own = subscription(
        "shop", MailSent, listen, {"queue": "slow", "timeout": 7, "tries": 2, "delay": 0}
    )

    assert (taken.queue, taken.timeout, taken.tries) == ("emails", 30.0, 3)
    assert taken.delay is not None
    assert taken.delay(MailSent(to="a")) == 5.0
    assert (own.queue, own.timeout, own.tries, own.delay) == ("slow", 7.0, 2, None)


def test_the_policy_of_a_listener_is_not_changed_by_its_event() -> None:
    taken = subscription("shop", MailSent, listen, {"retry": Retry(attempts=9)})

    assert (taken.tries, taken.retry) == (None, Retry(attempts=9))


def test_a_listener_of_several_takes_over_what_they_agree_on() -> None:
    async def both(event: MailSent | MailBounced) -> None: ...

    taken = subscription("shop", "mail.*", both, {})

    assert (taken.queue, taken.timeout) == ("emails", 300.0)


def declared(target: type[Event], *known: type[Event]) -> tuple[str, ...]:
    roster, registry = Roster("shop"), Registry()
    for one in known:
        registry.register(one)
    one = roster.declare(target, listen, {})
    return roster.bind(one, registry, lambda: registry).events


def test_a_kind_is_subscribed_to_by_its_class() -> None:
    assert declared(DomainEvent, CartEmptied, CartMerged, OrderShipped) == (
        "cart.emptied",
        "cart.merged",
    )


def test_the_base_of_all_is_every_event_also_those_that_nobody_declared() -> None:
    assert declared(Event, CartEmptied) == (">",)


def test_a_kind_that_nothing_is_of_is_refused() -> None:
    with pytest.raises(DeclarationError, match="takes every DomainEvent, but no declared event"):
        declared(DomainEvent, OrderShipped)


def test_a_kind_takes_what_only_another_listener_makes_known() -> None:
    roster, registry = Roster("shop"), Registry()
    roster.declare(DomainEvent, listen, {"name": "all"})
    roster.declare(CartEmptied, listen, {"name": "one"})

    roster.bind_all(registry, lambda: registry)

    assert [one.events for one in roster] == [("cart.emptied",), ("cart.emptied",)]


def test_tags_of_an_emit_come_after_those_of_the_class_each_once() -> None:
    tags = envelope(CartMerged(cart_id="c-1"), tags=("vip", "cart", "vip")).tags

    assert tags == ("cart", "vip")


@pytest.mark.parametrize("tags", ["vip", ["vip"], ("a,b",), (5,)])
def test_tags_that_can_not_be_carried_are_refused(tags: Any) -> None:
    with pytest.raises(InvalidEventError, match="tags: "):
        envelope(CartEmptied(cart_id="c-1"), tags=tags)


async def test_metadata_travels_as_headers_and_those_of_the_emit_win(
    driver: RecordingDriver,
) -> None:
    event = MailBounced(to="a").with_metadata({"X-Tenant": "acme"}, region="eu")
    options: Any = {"headers": {"X-Region": "1", "Region": "us"}}

    await emitter(driver).emit(event, options)

    headers = driver.published[0].headers
    assert {name: headers[name] for name in ("x-tenant", "region", "x-region")} == {
        "x-tenant": "acme",
        "region": "us",
        "x-region": "1",
    }
    assert json.loads(driver.published[0].body) == {"to": "a"}


async def test_metadata_that_is_no_header_is_refused_when_it_is_emitted(
    driver: RecordingDriver,
) -> None:
    with pytest.raises(HeaderError, match="reserved"):
        await emitter(driver).emit(MailBounced(to="a").with_metadata({"ce-id": "x"}), {})


def test_metadata_changes_neither_the_event_nor_what_it_equals() -> None:
    event = CartEmptied(cart_id="c-1")

    marked = event.with_metadata(tenant="acme").with_metadata(region="eu")

    assert dict(marked.event_metadata) == {"tenant": "acme", "region": "eu"}
    assert dict(event.event_metadata) == {}
    assert marked == event
    assert hash(marked) == hash(event)
    assert marked.model_dump() == {"cart_id": "c-1"}
    assert copy.deepcopy(marked).event_metadata == marked.event_metadata
    with pytest.raises(TypeError):
        marked.event_metadata["tenant"] = "other"  # type: ignore[index]


async def test_a_condition_decides_whether_anything_is_emitted() -> None:
    events = EventService("shop", settings=Settings(), clock=StillClock())

    assert await events.emit_if(False, CartEmptied(cart_id="c-1")) is None
    assert await events.emit_unless(True, "cart.emptied", {"cart_id": "c-1"}) is None
    with pytest.raises(NotConnectedError):
        await events.emit_if(True, CartEmptied(cart_id="c-1"))
    with pytest.raises(NotConnectedError):
        await events.emit_unless(False, CartEmptied(cart_id="c-1"))
