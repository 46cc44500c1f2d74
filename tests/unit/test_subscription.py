"""A listener's declaration: what is read from it, and what is refused."""

import functools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Union

import pytest

from eventbus.declaration import subscription
from eventbus.errors import DeclarationError, SubjectError, UnknownEventError
from eventbus.event import Event, UnknownEvent
from eventbus.middleware.base import Context
from eventbus.registry import Registry
from eventbus.retry import Retry
from eventbus.subscription import Subscription

if TYPE_CHECKING:
    from elsewhere import Missing  # type: ignore[import-not-found]


class UserCreated(Event, name="user.created"):
    user_id: str


class UserCreatedV2(Event, name="user.created", version=2):
    user_id: str


class UserDeleted(Event, name="user.deleted"):
    user_id: str


class UserEvent(Event):
    user_id: str


class UserBanned(UserEvent, name="user.banned"):
    pass


async def welcome(event: UserCreated) -> None:
    """Take one event."""


async def note(event: Event, context: Context) -> None:
    """Take any event and its context."""


def declared(
    target: type[Event] | str, listener: Callable[..., Awaitable[None]], **options: Any
) -> Subscription:
    return subscription("mail", target, listener, options)  # type: ignore[arg-type]


def checked(one: Subscription, *known: type[Event]) -> Registry:
    registry = Registry()
    for event in known:
        registry.register(event)
    one.register(registry)
    one.check(registry)
    return registry


def context() -> Context:
    event = UserCreated(user_id="u-1")
    return Context(
        event=event,
        id="1",
        name="user.created",
        version=1,
        key=None,
        time=datetime(2026, 3, 1, tzinfo=UTC),
        source="user",
        correlation_id="1",
        causation_id=None,
        attempt=1,
        listener="welcome",
        service="mail",
        headers={},
        tags=(),
        trace={},
        subject="events.user.created",
        stream="EVENTS",
        sequence=1,
        emit=None,  # type: ignore[arg-type]
    )


def test_a_listener_of_a_class_takes_the_events_of_its_name() -> None:
    one = declared(UserCreated, welcome)

    assert (one.service, one.listener, one.durable) == ("mail", "welcome", "mail__welcome")
    assert (one.events, one.accepts) == (("user.created",), (UserCreated,))
    assert not one.takes_any


def test_what_is_not_said_has_a_default() -> None:
    one = declared(UserCreated, welcome)

    assert (one.retry, one.concurrency, one.timeout, one.ack_wait) == (None, 16, 300.0, 30.0)
    assert (one.queue, one.start, one.middleware) == (None, "new", ())


def test_options_are_kept_with_durations_in_seconds() -> None:
    retry = Retry(attempts=2)

    one = declared(
        "user.*",
        note,
        name="all-users",
        retry=retry,
        concurrency=4,
        timeout="2m",
        queue="slow",
        start="all",
        ack_wait=timedelta(seconds=10),
    )

    assert (one.listener, one.retry, one.concurrency) == ("all-users", retry, 4)
    assert (one.timeout, one.queue, one.start, one.ack_wait) == (120.0, "slow", "all", 10.0)


def test_it_says_what_it_needs_from_a_driver() -> None:
    spec = declared("user.*", note, concurrency=200, start=7, ack_wait=5).consumer()

    assert (spec.durable, spec.service, spec.listener) == ("mail__note", "mail", "note")
    assert (spec.events, spec.slots, spec.ack_wait, spec.start) == (("user.*",), 200, 5.0, 7)
    assert spec.max_ack_pending == 2000


def test_few_slots_leave_room_for_delayed_retries() -> None:
    assert declared(UserCreated, welcome, concurrency=1).consumer().max_ack_pending == 1000


async def test_a_listener_of_one_parameter_is_called_with_the_event() -> None:
    got: list[object] = []

    async def keep(event: UserCreated) -> None:
        got.append(event)

    await declared(UserCreated, keep).handler(context().event, context())

    assert got == [UserCreated(user_id="u-1")]


async def test_a_listener_of_two_parameters_is_called_with_event_and_context() -> None:
    got: list[object] = []

    async def keep(event: UserCreated, about: Context) -> None:
        got.extend((event, about))

    await declared(UserCreated, keep).handler(context().event, context())

    assert got == [UserCreated(user_id="u-1"), context()]


class Mailer:
    """Listeners that are a method and an object."""

    async def send(self, event: UserCreated, context: Context) -> None:
        """Take an event as a method."""

    async def __call__(self, event: UserCreated) -> None:
        """Take an event as an object."""


def test_a_method_an_object_and_a_partial_are_listeners() -> None:
    async def send(event: UserCreated, context: Context, *, db: str) -> None: ...

    assert declared(UserCreated, Mailer().send).listener == "send"
    assert declared(UserCreated, Mailer()).listener == "Mailer"
    assert declared(UserCreated, functools.partial(send, db="x")).listener == "send"


async def test_a_partial_is_called_with_what_was_bound() -> None:
    got: list[object] = []

    async def keep(event: UserCreated, context: Context, *, db: str) -> None:
        got.extend((event.user_id, context.id, db))

    bound = functools.partial(keep, db="x")
    await declared(UserCreated, bound).handler(context().event, context())

    assert got == ["u-1", "1", "x"]


def test_a_parameter_with_a_default_is_the_listeners_own() -> None:
    async def send(event: UserCreated, retries: int = 3, *, verbose: bool = False) -> None: ...

    assert declared(UserCreated, send).listener == "send"


def _sync(event: UserCreated) -> None: ...


async def _nothing() -> None: ...


async def _two(event: UserCreated, other: str) -> None: ...


async def _three(event: UserCreated, context: Context, more: str) -> None: ...


async def _reversed(context: Context, event: UserCreated) -> None: ...


async def _context_alone(context: Context) -> None: ...


async def _keyword(event: UserCreated, *, db: str) -> None: ...


async def _star(*events: UserCreated) -> None: ...


async def _other(event: UserDeleted) -> None: ...


@pytest.mark.parametrize(
    ("listener", "problem"),
    [
        (_sync, "write 'async def _sync(event)'"),
        (_nothing, "it takes ()"),
        (_two, "it takes (event, other)"),
        (_three, "it takes (event, context, more)"),
        (_reversed, "it takes (context, event)"),
        (_context_alone, "it takes (context)"),
        (_keyword, "needs db=, which nobody gives it"),
        (_star, "it takes (events)"),
        (_other, "takes UserDeleted, but is subscribed to UserCreated"),
    ],
)
def test_what_could_not_be_called_with_the_event_is_refused(
    listener: Callable[..., Any], problem: str
) -> None:
    with pytest.raises(DeclarationError) as raised:
        declared(UserCreated, listener)

    assert problem in str(raised.value)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"concurency": 2}, "no option 'concurency'; did you mean 'concurrency'?"),
        ({"concurrency": 0}, "concurrency=0"),
        ({"concurrency": "4"}, "concurrency='4'"),
        ({"timeout": 0}, "leaves it no time"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": "long"}, "timeout: 'long' isn't a duration"),
        ({"timeout": None}, "timeout"),
        ({"retry": 5}, "retry=Retry("),
        ({"start": "old"}, "start='old'"),
        ({"start": 0}, "start=0"),
        ({"start": True}, "start=True"),
        ({"start": datetime(2026, 3, 1)}, "a time with its zone"),  # noqa: DTZ001 - refused
        ({"name": "a.b"}, "pass name= to subscribe()"),
        ({"name": ""}, "pass name= to subscribe()"),
    ],
    ids=str,
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(DeclarationError) as raised:
        declared(UserCreated, welcome, **options)

    assert problem in str(raised.value)


def test_a_start_may_be_a_sequence_or_a_time_with_its_zone() -> None:
    time = datetime(2026, 3, 1, tzinfo=UTC)

    assert declared(UserCreated, welcome, start=time).start == time
    assert declared(UserCreated, welcome, start=1).start == 1


def test_a_lambda_has_no_name_to_listen_under() -> None:
    with pytest.raises(DeclarationError, match="pass name="):
        declared(UserCreated, lambda event: welcome(event))  # noqa: PLW0108


@pytest.mark.parametrize("target", ["user.", "User.created", "*", "user created", ""])
def test_a_target_that_is_no_pattern_is_refused(target: str) -> None:
    with pytest.raises(SubjectError):
        declared(target, note)


def test_a_base_class_has_no_names_until_it_is_bound() -> None:
    registry = Registry()
    registry.register(UserBanned)
    one = declared(UserEvent, note)

    assert one.events == ()
    assert one.bound(registry).events == ("user.banned",)


@pytest.mark.parametrize("annotation", [Event, UnknownEvent, None, Any, object])
def test_a_listener_of_any_event_takes_those_that_nobody_declared(annotation: object) -> None:
    async def listen(event: Any) -> None: ...

    listen.__annotations__ = {} if annotation is None else {"event": annotation}

    one = declared("user.>", listen)

    assert one.takes_any
    checked(one, UserCreated, UserDeleted)


@pytest.mark.parametrize("union", [UserCreated | UserDeleted, Union[UserCreated, UserDeleted]])  # noqa: UP007
def test_a_listener_of_a_union_takes_its_members(union: object) -> None:
    async def listen(event: Any) -> None: ...

    listen.__annotations__ = {"event": union}

    assert declared("user.*", listen).accepts == (UserCreated, UserDeleted)


def test_the_events_of_a_listeners_annotation_become_known() -> None:
    async def listen(event: UserCreated | UserDeleted) -> None: ...

    registry = checked(declared("user.*", listen))

    assert registry.names() == ("user.created", "user.deleted")


def test_a_pattern_that_brings_an_event_the_listener_does_not_take_is_refused() -> None:
    async def listen(event: UserCreated | UserDeleted) -> None: ...

    with pytest.raises(DeclarationError, match=r"'user\.\*' also brings UserBanned"):
        checked(declared("user.*", listen), UserBanned)


def test_a_pattern_that_never_brings_what_the_listener_takes_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"'user\.created' isn't among 'payment\.\*'"):
        checked(declared("payment.*", welcome))


def test_a_base_class_takes_all_that_inherit_it() -> None:
    async def listen(event: UserEvent) -> None: ...

    checked(declared("user.*", listen), UserBanned)
    with pytest.raises(DeclarationError, match="also brings UserCreated"):
        checked(declared("user.*", listen), UserBanned, UserCreated)


def test_a_name_that_nobody_declared_is_refused_with_the_closest() -> None:
    async def listen(event: UserEvent) -> None: ...

    with pytest.raises(UnknownEventError, match=r"did you mean 'user\.banned'"):
        checked(declared("user.baned", listen), UserBanned)


def test_a_listener_may_ask_for_an_old_version_where_a_newer_one_is_known() -> None:
    checked(declared(UserCreated, welcome), UserCreatedV2)


@pytest.mark.parametrize("kind", [dict, str, Context])
def test_an_annotation_that_is_no_event_is_refused(kind: type) -> None:
    async def listen(event: Any) -> None: ...

    listen.__annotations__ = {"event": kind}

    with pytest.raises(DeclarationError):
        declared("user.*", listen)


def test_an_annotation_that_only_type_checkers_resolve_is_refused_where_it_matters() -> None:
    async def listen(event: "Missing") -> None: ...

    with pytest.raises(DeclarationError, match="'Missing' can't be resolved"):
        declared("user.*", listen)


def test_an_annotation_that_can_not_be_resolved_hides_no_other() -> None:
    async def listen(event: "UserCreated", context: "Context") -> "Missing": ...

    assert declared("user.*", listen).accepts == (UserCreated,)


def test_with_a_class_to_go_by_the_annotation_may_be_out_of_reach() -> None:
    async def listen(event: "Missing", about: "Missing.Context") -> None: ...

    assert declared(UserCreated, listen).accepts == (UserCreated,)
