"""Queries and their answers, in a process: typed, checked, and refused at once where nobody is."""

import asyncio
from typing import Any

import pytest

from eventbus import Data, EventService, Query
from eventbus.drivers.memory import MemoryBroker, MemoryDriver
from eventbus.drivers.sync import SyncDriver, SyncHub
from eventbus.errors import (
    DeclarationError,
    InvalidEventError,
    NobodyAnswersError,
    NotConnectedError,
    RequestFailedError,
    RequestTimeoutError,
)
from eventbus.query import query_spec_of
from eventbus.settings import Settings


class UserView(Data):
    user_id: str
    name: str


class GetUser(Query[UserView], name="user.get"):
    user_id: str


class CountUsers(Query[int], name="user.count"):
    """How many there are."""


class Sort(Query[list[UserView]], name="user.sort"):
    users: list[UserView]


def services(kind: str) -> tuple[EventService, EventService]:
    """Return a service that answers, and one that asks it."""
    if kind == "memory":
        broker = MemoryBroker()
        drivers: list[Any] = [MemoryDriver(broker), MemoryDriver(broker)]
    else:
        hub = SyncHub()
        drivers = [SyncDriver(hub), SyncDriver(hub)]
    users, shop = (
        EventService(name, settings=Settings(schemas=()), driver=driver)
        for name, driver in zip(("users", "shop"), drivers, strict=True)
    )
    return users, shop


@pytest.mark.parametrize("kind", ["memory", "sync"])
async def test_a_query_is_answered_by_another_service(kind: str) -> None:
    users, shop = services(kind)

    @users.answer(GetUser)
    async def get_user(query: GetUser) -> UserView:
        return UserView(user_id=query.user_id, name="Ada")

    @users.answer(Sort)
    async def sort(query: Sort) -> list[UserView]:
        return sorted(query.users, key=lambda one: one.name)

    async with users, shop:
        ada = await shop.request(GetUser(user_id="u-1"))
        bob = UserView(user_id="u-2", name="Bob")

        assert ada == UserView(user_id="u-1", name="Ada")
        assert await users.request(Sort(users=[bob, ada])) == [ada, bob]


@pytest.mark.parametrize("kind", ["memory", "sync"])
async def test_where_nobody_answers_it_fails_at_once(kind: str) -> None:
    users, shop = services(kind)

    @users.answer(GetUser)
    async def get_user(query: GetUser) -> UserView:
        raise AssertionError("not asked")

    async with shop:
        async with users:
            pass
        with pytest.raises(NobodyAnswersError, match=r"user\.get"):
            await shop.request(GetUser(user_id="u-1"), timeout=60)
    with pytest.raises(NotConnectedError, match="isn't started"):
        await shop.request(GetUser(user_id="u-1"))


async def test_what_the_answer_raises_is_told_to_whoever_asks() -> None:
    users, shop = services("memory")

    @users.answer(GetUser)
    async def get_user(query: GetUser) -> UserView:
        raise KeyError("u-1 ☃")

    async with users, shop:
        with pytest.raises(RequestFailedError) as raised:
            await shop.request(GetUser(user_id="u-1"))

    assert (raised.value.error, raised.value.problem) == ("KeyError", "'u-1 ☃'")


async def test_a_reply_of_another_type_is_the_answers_fault() -> None:
    users, shop = services("memory")

    @users.answer(CountUsers)
    async def count(query: CountUsers) -> object:
        return "many"

    async with users, shop:
        with pytest.raises(RequestFailedError, match="ValidationError"):
            await shop.request(CountUsers())


async def test_a_late_reply_is_given_up_on_both_sides() -> None:
    users, shop = services("memory")

    @users.answer(CountUsers, timeout=0.05)
    async def count(query: CountUsers) -> int:
        await asyncio.Event().wait()
        return 1

    async with users, shop:
        with pytest.raises(RequestFailedError, match="TimeoutError"):
            await shop.request(CountUsers())
        with pytest.raises(RequestTimeoutError, match=r"within 0\.01 s"):
            await shop.request(CountUsers(), timeout=0.01)


async def test_a_reply_that_does_not_fit_is_refused() -> None:
    class Other(Query[str], name="user.count"):
        """The same name, another reply."""

    users, shop = services("memory")

    @users.answer(Other)
    async def count(query: Other) -> str:
        return "many"

    async with users, shop:
        with pytest.raises(InvalidEventError, match="reply to user"):
            await shop.request(CountUsers())


async def get(query: GetUser) -> UserView:
    return UserView(user_id=query.user_id, name="")


def not_async(query: GetUser) -> None: ...


async def takes_more(query: GetUser, more: int) -> None: ...


async def takes_another(query: CountUsers) -> int:
    return 1


@pytest.mark.parametrize("wrong", [not_async, takes_more, takes_another])
def test_what_answers_is_an_async_function_of_the_query(wrong: Any) -> None:
    with pytest.raises(DeclarationError, match="async def answer"):
        services("memory")[0].answer(GetUser)(wrong)


async def test_a_query_has_one_answer_that_is_declared_before_the_start() -> None:
    users, _ = services("memory")
    users.answer(GetUser)(get)

    with pytest.raises(DeclarationError, match="twice"):
        users.answer(GetUser)(get)
    async with users:
        with pytest.raises(DeclarationError, match="is running"):
            users.answer(CountUsers)


def test_a_query_says_its_name_and_its_reply() -> None:
    assert query_spec_of(GetUser).name == "user.get"
    assert query_spec_of(GetUser).reply is UserView
    with pytest.raises(DeclarationError, match="isn't an event name"):

        class Bad(Query[int], name="Get"): ...

    with pytest.raises(DeclarationError, match="what its answer is"):

        class NoReply(Query, name="user.none"): ...  # type: ignore[type-arg]

    with pytest.raises(DeclarationError, match="no class keyword"):

        class Typo(Query[int], nmae="user.none"): ...  # type: ignore[call-arg]

    class Base(Query[int]):
        page: int = 1

    class Page(Base, name="user.page"): ...

    assert query_spec_of(Page).reply is int
    with pytest.raises(DeclarationError, match="has no name"):
        query_spec_of(Base)
