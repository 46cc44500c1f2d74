"""What a service does with its own listeners: asks them, counts them, ends them, maps them."""

import sys
from types import ModuleType
from typing import Any

import pytest

from eventbus import Context, Event, EventService
from eventbus.drivers.memory import MemoryDriver
from eventbus.errors import DeclarationError, DuplicateSubscriptionError, NotConnectedError
from eventbus.eventmap import EventMap
from eventbus.middleware.base import CallNext
from eventbus.settings import Settings


class CartPriced(Event, name="cart.priced"):
    total: int = 0


class CartClosed(Event, name="cart.closed"):
    total: int = 0


def service(**options: Any) -> EventService:
    given: dict[str, Any] = {"settings": Settings(schemas=()), "driver": MemoryDriver()}
    return EventService("shop", **(given | options))


async def nothing(event: CartPriced) -> None: ...


async def half(event: CartPriced) -> int:
    return event.total // 2


async def tenth(event: Event, context: Context) -> str:
    return f"a tenth, says {context.listener} of {context.source}"


async def fails(event: CartPriced) -> int:
    raise ValueError("no")


# Asking ----------------------------------------------------------------------------------------


async def test_the_first_listener_that_has_a_result_answers() -> None:
    asked: list[str] = []

    async def watch(context: Context, call_next: CallNext) -> None:
        asked.append(context.listener)
        await call_next(context)

    events = service(middleware=[watch])
    events.subscribe(CartPriced, nothing)
    events.subscribe("cart.*", tenth)
    events.subscribe(CartPriced, half)
    async with events:
        assert await events.until(CartPriced(total=8)) == "a tenth, says tenth of shop"
        assert asked == ["nothing", "tenth"]
        await events.unsubscribe(tenth)
        assert await events.until("cart.priced", {"total": 8}) == 4
        await events.unsubscribe(half)
        assert await events.until(CartPriced(total=8)) is None


async def test_what_a_listener_raises_is_raised_and_nobody_behind_it_is_asked() -> None:
    events = service()
    events.subscribe(CartPriced, fails)
    events.subscribe(CartPriced, half)
    async with events:
        with pytest.raises(ValueError, match="no"):
            await events.until(CartPriced(total=8))


async def test_nothing_is_stored_of_what_is_asked() -> None:
    driver = MemoryDriver()
    events = service(driver=driver)
    events.subscribe(CartPriced, half)
    async with events:
        await events.until(CartPriced(total=8))
    assert driver.broker.messages() == ()

    with pytest.raises(NotConnectedError, match="isn't started"):
        await events.until(CartPriced(total=8))


# Looking up and ending ---------------------------------------------------------------------------


def test_a_service_tells_who_listens_to_an_event() -> None:
    events = service()
    events.subscribe(CartPriced, half)
    events.subscribe("cart.*", tenth)

    def names(*event: Any) -> list[str]:
        return [one.listener for one in events.listeners(*event)]

    assert names() == names(CartPriced) == names("cart.priced") == ["half", "tenth"]
    assert names(CartClosed) == names("cart.*") == ["tenth"]
    assert events.has_listeners("cart.closed")
    assert not events.has_listeners("user.created")


async def test_forgetting_an_event_ends_the_listeners_of_just_that() -> None:
    events = service()
    events.subscribe(CartPriced, half)
    events.subscribe("cart.*", tenth)

    forgotten = await events.forget(CartPriced)

    assert [one.listener for one in forgotten] == ["half"]
    assert [one.listener for one in events.listeners()] == ["tenth"]
    assert len(await events.forget("cart.*")) == 1
    assert await events.forget("cart.*") == ()


# Holding back ------------------------------------------------------------------------------------


async def test_what_is_pushed_is_emitted_by_a_flush_in_its_order() -> None:
    driver = MemoryDriver()
    events = service(driver=driver)
    events.registry.register(CartClosed)
    async with events:
        events.push(CartPriced(total=1), headers={"x-tenant": "a"})
        events.push("cart.closed", {"total": 2})
        events.push(CartPriced(total=3))
        assert driver.broker.messages() == ()

        receipts = await events.flush(CartPriced)
        assert [one.headers["ce-type"] for one in driver.broker.messages()] == ["cart.priced"] * 2
        assert driver.broker.messages()[0].headers["x-tenant"] == "a"
        receipts += await events.flush()

        assert len(receipts) == 3
        assert await events.flush() == []
        events.push(CartPriced(total=4))
        assert events.forget_pushed() == 1


async def test_what_could_not_be_emitted_stays_pushed() -> None:
    events = service()
    events.push(CartPriced(total=1))

    with pytest.raises(NotConnectedError):
        await events.flush()

    assert events.forget_pushed() == 1


# A central map -----------------------------------------------------------------------------------


@pytest.fixture
def config() -> Any:
    module: Any = ModuleType("shop_config")
    module.half = half
    module.LISTENERS = {
        "cart.priced": ["{service}_config:half", nothing],
        "cart.*": (tenth, {"queue": "audit", "tries": 3}),
        CartClosed: tenth_of_closed,
    }
    sys.modules["shop_config"] = module
    yield module
    del sys.modules["shop_config"]


async def tenth_of_closed(event: CartClosed) -> None: ...


def test_a_map_names_the_listeners_of_each_event(config: Any) -> None:
    events = service()

    events.listen(config.LISTENERS)

    found = {one.listener: one for one in events.listeners()}
    assert list(found) == ["half", "nothing", "tenth", "tenth_of_closed"]
    assert found["half"].events == ("cart.priced",)
    assert (found["tenth"].queue, found["tenth"].tries) == ("audit", 3)


async def test_the_settings_may_name_the_map(config: Any) -> None:
    events = service(settings=Settings(schemas=(), listeners="{service}_config:LISTENERS"))

    assert events.queues() == {"default", "audit"}
    async with events:
        assert await events.until(CartPriced(total=8)) == 4
    async with events:  # read once
        assert len(events.listeners()) == 4


def test_an_event_map_is_a_map_too() -> None:
    events = service()

    events.listen(EventMap().bind(CartPriced, half))

    assert events.has_listeners(CartPriced)
    with pytest.raises(DuplicateSubscriptionError):
        events.listen({"cart.priced": half})


@pytest.mark.parametrize(
    ("listeners", "problem"),
    [
        ({"cart.priced": "nowhere_at_all:f"}, "can't be loaded"),
        ({"cart.priced": "eventbus"}, "can't be loaded"),
        ({"cart.priced": 5}, "is no listener"),
        ({"cart.priced": (half, 5)}, "must be"),
        ({5: half}, "is no event name"),
        ([half], "is no map"),
    ],
)
def test_a_map_that_makes_no_sense_is_refused(listeners: Any, problem: str) -> None:
    with pytest.raises(DeclarationError, match=problem):
        service().listen(listeners)
