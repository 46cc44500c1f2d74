"""Fakes: what they record, what they assert, and whom they leave alone."""

import asyncio
from datetime import timedelta

import pytest

from eventbus import Context, Event, EventService
from eventbus.errors import InvalidEventError, NotConnectedError, SubjectError
from eventbus.testing import fake, is_faking, restore


class UserCreated(Event, name="user.created", key="user_id", tags=("signup",)):
    user_id: str
    email: str = "ada@example.org"


class UserDeleted(Event, name="user.deleted"):
    user_id: str


class OrderCreated(Event, name="order.created"):
    order_id: str


def service(name: str = "web") -> EventService:
    return EventService(name)


async def test_a_faked_emit_is_recorded_and_nothing_has_to_be_started() -> None:
    events = service()

    with events.fake() as recorded:
        receipt = await events.emit(
            UserCreated(user_id="u-1"), correlation_id="c-1", headers={"tenant": "t"}
        )

    [one] = recorded.emitted(UserCreated)
    assert (receipt.driver, receipt.id) == ("fake", one.id)
    assert (one.event, one.key, one.tags) == (UserCreated(user_id="u-1"), "u-1", ("signup",))
    assert (one.service, one.correlation_id, one.headers) == ("web", "c-1", {"tenant": "t"})
    assert one.options == {"correlation_id": "c-1", "headers": {"tenant": "t"}}


async def test_after_the_block_emits_are_real_again() -> None:
    events = service()

    with events.fake() as recorded:
        pass

    with pytest.raises(NotConnectedError):
        await events.emit(UserCreated(user_id="u-1"))
    recorded.assert_nothing_emitted()


async def test_a_fake_refuses_what_a_real_emit_refuses() -> None:
    events = service()
    events.registry.register(UserCreated)

    with events.fake() as recorded:
        with pytest.raises(InvalidEventError):
            await events.emit("user.created", {"user_id": 1})
        with pytest.raises(TypeError, match="no option 'hedaers'"):
            await events.emit(UserCreated(user_id="u-1"), hedaers={})
        with pytest.raises(InvalidEventError):
            await events.emit(UserCreated(user_id="u-1"), id="no spaces allowed")

    recorded.assert_nothing_emitted()


async def test_many_at_once_are_recorded_too() -> None:
    events = service()

    with events.fake() as recorded:
        receipts = await events.emit_many([UserCreated(user_id=str(n)) for n in range(3)])

    assert [one.id for one in receipts] == [one.id for one in recorded.emitted("user.*")]


@pytest.mark.parametrize(
    ("chosen", "kept"),
    [
        ({"only": [UserCreated]}, ["user.created"]),
        ({"only": ["user.*"]}, ["user.created", "user.deleted"]),
        ({"except_": ["user.created"]}, ["user.deleted", "order.created"]),
        ({"only": ["user.*"], "except_": [UserDeleted]}, ["user.created"]),
    ],
)
async def test_only_and_except_choose_what_is_recorded(
    chosen: dict[str, list[type[Event] | str]], kept: list[str]
) -> None:
    events = service()

    with events.fake(**chosen) as recorded:
        for one in (
            UserCreated(user_id="1"),
            UserDeleted(user_id="1"),
            OrderCreated(order_id="1"),
        ):
            try:
                await events.emit(one)
            except NotConnectedError:
                continue

    assert [one.name for one in recorded.emitted()] == kept


def test_a_pattern_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(SubjectError):
        service().fake(only=["User Created"])

    assert not is_faking()


async def test_of_two_fakes_the_inner_one_gets_it_and_the_outer_one_gets_the_rest() -> None:
    events = service()

    with events.fake() as outer, events.fake(only=["order.*"]) as inner:
        await events.emit(UserCreated(user_id="1"))
        await events.emit(OrderCreated(order_id="1"))

    outer.assert_emitted(UserCreated, times=1)
    outer.assert_not_emitted(OrderCreated)
    inner.assert_emitted(OrderCreated, times=1)


async def test_the_fake_of_one_service_leaves_another_alone() -> None:
    web, shop = service("web"), service("shop")

    with web.fake() as recorded, pytest.raises(NotConnectedError):
        await shop.emit(OrderCreated(order_id="1"))

    recorded.assert_nothing_emitted()


async def test_functions_fake_every_service_until_restored() -> None:
    assert not is_faking()

    recorded = fake()
    await service("web").emit(UserCreated(user_id="1"))
    await service("shop").emit(OrderCreated(order_id="1"))
    faking = is_faking()
    restore()

    assert (faking, is_faking()) == (True, False)
    assert [one.service for one in recorded.emitted()] == ["web", "shop"]
    with pytest.raises(TypeError, match=r"events\.fake\(\)"):
        recorded.assert_listening(UserCreated)
    restore()


async def test_tests_side_by_side_dont_see_each_others_emits() -> None:
    events, both = service(), asyncio.Barrier(2)

    async def one(user_id: str) -> list[str]:
        with events.fake() as recorded:
            await both.wait()
            await events.emit(UserCreated(user_id=user_id))
            await both.wait()
            return [each.event.user_id for each in recorded.emitted(UserCreated)]

    assert await asyncio.gather(one("a"), one("b")) == [["a"], ["b"]]


async def test_what_was_emitted_can_be_asked_for_by_field_by_function_and_by_tag() -> None:
    events = service()

    with events.fake() as recorded:
        await events.emit(UserCreated(user_id="u-1"))
        await events.emit(UserCreated(user_id="u-2"))
        await events.emit(UserDeleted(user_id="u-1"))

    recorded.assert_emitted(UserCreated)
    recorded.assert_emitted(UserCreated, times=2)
    recorded.assert_emitted("user.*", where={"user_id": "u-1"}, times=2)
    recorded.assert_emitted(UserCreated, where=lambda event: event.user_id == "u-2", times=1)
    recorded.assert_not_emitted(UserCreated, where={"user_id": "u-3"})
    recorded.assert_not_emitted(OrderCreated)
    assert len(recorded.emitted(tag="signup")) == 2
    recorded.clear()
    recorded.assert_nothing_emitted()


async def test_a_failure_says_what_was_emitted_and_how_it_differs() -> None:
    events = service()

    with events.fake() as recorded:
        with pytest.raises(AssertionError) as nothing:
            recorded.assert_emitted(UserCreated)
        await events.emit(UserCreated(user_id="u-1"))
        with pytest.raises(AssertionError) as other:
            recorded.assert_emitted(UserCreated, where={"user_id": "u-2", "age": 3})
        with pytest.raises(AssertionError) as often:
            recorded.assert_emitted("user.created", times=2)
        with pytest.raises(AssertionError) as unwanted:
            recorded.assert_not_emitted(UserCreated)
        with pytest.raises(AssertionError) as any_at_all:
            recorded.assert_nothing_emitted()

    listed = '  1. user.created {"user_id":"u-1","email":"ada@example.org"}'
    assert str(nothing.value) == (
        "expected UserCreated to be emitted, it was not; nothing was emitted"
    )
    assert str(other.value) == (
        "expected UserCreated with user_id='u-2', age=3 to be emitted, it was not; emitted:\n"
        f"{listed}\n       user_id is 'u-1', not 'u-2'\n       age is no field, not 3"
    )
    assert str(often.value) == (
        f"expected user.created to be emitted 2 times, it was once; emitted:\n{listed}"
    )
    assert str(unwanted.value) == (
        f"expected UserCreated not to be emitted, it was once; emitted:\n{listed}"
    )
    assert str(any_at_all.value) == f"expected no event to be emitted; emitted:\n{listed}"


def test_who_listens_can_be_asserted_by_event_and_by_listener() -> None:
    events = service()

    @events.subscribe("user.*")
    async def welcome(event: Event, context: Context) -> None: ...

    with events.fake() as recorded:
        recorded.assert_listening(UserCreated)
        recorded.assert_listening("user.created", welcome)
        with pytest.raises(AssertionError) as wrong:
            recorded.assert_listening(OrderCreated, welcome)
        with pytest.raises(AssertionError) as unknown:
            recorded.assert_listening(UserCreated, "welcom")

    assert str(wrong.value) == (
        "expected listener 'welcome' of 'web' for order.created; it takes user.*; nobody takes it"
    )
    assert "did you mean 'welcome'?" in str(unknown.value)


async def test_a_delayed_event_is_moved_and_taken_back_as_a_real_one() -> None:
    events = service()

    with events.fake() as recorded:
        direct = await events.emit(UserDeleted(user_id="u-1"))
        receipt = await events.emit(UserDeleted(user_id="u-2"), id="d-2", delay="1h")
        moved = await events.reschedule(receipt.scheduled, delay="2h")
        cancelled = [await events.cancel("d-2"), await events.cancel(receipt.scheduled)]
        too_late = await events.reschedule("d-2", delay=1)

    _, one = recorded.emitted(UserDeleted)
    assert direct.scheduled is None
    assert receipt.scheduled is not None
    assert moved is not None
    assert timedelta(minutes=59) < moved.at - receipt.scheduled.at < timedelta(minutes=61)
    assert (one.due, one.is_cancelled) == (moved.at, True)
    assert (cancelled, too_late) == ([True, True], None)
