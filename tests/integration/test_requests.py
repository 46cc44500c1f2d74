"""Queries on a real server: over plain requests, shared by processes, and through a reconnect."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from eventbus import Data, EventService, Query
from eventbus.correlation import current_scope
from eventbus.embedded import NatsServer
from eventbus.errors import (
    NobodyAnswersError,
    NotConnectedError,
    PayloadTooLargeError,
    RequestFailedError,
    RequestTimeoutError,
)
from eventbus.settings import Settings
from tests.integration.rig import Line

pytestmark = [pytest.mark.nats]


class UserView(Data):
    user_id: str
    process: int = 0


class GetUser(Query[UserView], name="user.get"):
    user_id: str


def service(url: str, name: str = "shop") -> EventService:
    return EventService(name, settings=Settings(nats_url=url, grace=2, emit_timeout=3))


def answering(url: str, process: int = 0) -> EventService:
    events = service(url, "users")

    @events.answer(GetUser)
    async def get_user(query: GetUser) -> UserView:
        if query.user_id == "slow":
            await asyncio.sleep(0.3)
        if query.user_id == "big":
            return UserView(user_id="x" * 2_000_000)
        if query.user_id == "scope":
            return UserView(user_id=current_scope().correlation_id or "")
        return UserView(user_id=query.user_id, process=process)

    return events


async def test_each_query_goes_to_one_of_the_processes(nats_server: NatsServer) -> None:
    url = nats_server.url
    async with AsyncExitStack() as stack:
        for process in (1, 2):
            await stack.enter_async_context(answering(url, process))
        shop = await stack.enter_async_context(service(url))

        replies = [await shop.request(GetUser(user_id=f"u-{one}")) for one in range(40)]

        assert [one.user_id for one in replies] == [f"u-{one}" for one in range(40)]
        assert {one.process for one in replies} == {1, 2}
        assert (await shop.request(GetUser(user_id="scope"))).user_id


async def test_where_nobody_listens_it_fails_at_once(nats_server: NatsServer) -> None:
    async with service(nats_server.url) as shop:
        async with answering(nats_server.url):
            await shop.request(GetUser(user_id="u-1"))
        began = time.monotonic()
        with pytest.raises(NobodyAnswersError):
            await shop.request(GetUser(user_id="u-1"), timeout=60)

        assert time.monotonic() - began < 20


async def test_what_is_late_or_too_big_is_told(nats_server: NatsServer) -> None:
    async with answering(nats_server.url), service(nats_server.url) as shop:
        with pytest.raises(RequestTimeoutError):
            await shop.request(GetUser(user_id="slow"), timeout=0.05)
        with pytest.raises(RequestFailedError, match="2000"):
            await shop.request(GetUser(user_id="big"))
        with pytest.raises(PayloadTooLargeError):
            await shop.request(GetUser(user_id="x" * 2_000_000))

        assert (await shop.request(GetUser(user_id="u-1"))).user_id == "u-1"


async def test_a_stop_lets_an_answer_finish(nats_server: NatsServer) -> None:
    async with service(nats_server.url) as shop:
        users = answering(nats_server.url)
        await users.start()
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(shop.request(GetUser(user_id="slow")))
            await asyncio.sleep(0.1)
            await users.stop()

        assert asked.result().user_id == "slow"


async def test_it_answers_again_after_a_reconnect(nats_server: NatsServer) -> None:
    async with (
        Line(nats_server) as line,
        answering(line.url),
        service(nats_server.url) as shop,
    ):
        assert (await shop.request(GetUser(user_id="u-1"))).user_id == "u-1"
        line.cut()

        async with asyncio.timeout(30):
            while True:
                try:
                    reply = await shop.request(GetUser(user_id="u-2"), timeout=1)
                except (NobodyAnswersError, RequestTimeoutError, NotConnectedError):
                    await asyncio.sleep(0.05)
                else:
                    break

        assert reply.user_id == "u-2"
