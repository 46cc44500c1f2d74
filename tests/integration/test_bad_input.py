"""Everything that can be put in wrongly: each has an error of its own, and nothing else suffers."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from eventbus import Context, Event, EventService
from eventbus.embedded import NatsServer
from eventbus.errors import (
    CertificateError,
    DeclarationError,
    EventBusError,
    HeaderError,
    InvalidEventError,
    NoJetStreamError,
    NotAuthorizedError,
    NotConnectedError,
    PayloadTooLargeError,
    ServerTooOldError,
    SettingsError,
    SubjectError,
    TopologyError,
    UnknownEventError,
)
from tests.faults.harness.pace import patience
from tests.integration.identities import Authority
from tests.integration.rig import Line, free_port, plain, settings_of, stored_ids
from tests.waiting import eventually

pytestmark = [pytest.mark.nats, pytest.mark.usefixtures("_nats_binary")]

GOOD: dict[str, Any] = {"user_id": "u-1", "age": 36}
BODY = b'{"user_id": "u-1", "age": 36}'
MIB = 1024 * 1024


class UserCreated(Event, name="user.created", key="user_id"):
    user_id: str
    age: int
    note: str = ""


class Shop:
    """A service with one listener, and the ids of what it was given."""

    def __init__(self, url: str, **settings: object) -> None:
        settings = {"schemas": (), **settings}  # the repository declares a user.created too
        self.events = EventService("shop", settings=settings_of(url, **settings))
        self.given: list[str] = []
        self._more = asyncio.Event()
        self.events.subscribe(UserCreated, self.take)

    async def take(self, event: UserCreated, context: Context) -> None:
        self.given.append(context.id)
        self._more.set()

    async def until_given(self, *ids: str, seconds: float = 20) -> None:
        async with asyncio.timeout(seconds * patience()):
            while not set(ids) <= set(self.given):
                self._more.clear()
                await self._more.wait()


@pytest.fixture
async def shop(nats_server: NatsServer) -> AsyncIterator[Shop]:
    shop = Shop(nats_server.url)
    async with shop.events:
        yield shop


# What is emitted -------------------------------------------------------------------------------

EMITS: dict[str, tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = {
    "an unknown name": (
        ("user.craeted", GOOD),
        {},
        UnknownEventError,
        "no event 'user.craeted' is declared; did you mean 'user.created'?",
    ),
    "a wildcard": (("user.*", GOOD), {}, SubjectError, "wildcards are for subscribe()"),
    "a space in the name": (("user created", GOOD), {}, SubjectError, "holds white space"),
    "capitals": (("user.Created", GOOD), {}, SubjectError, "it has capitals"),
    "a class": ((UserCreated,), {}, TypeError, "takes an event, or a name and its data"),
    "an event and data": (
        (UserCreated(user_id="u-1", age=36), GOOD),
        {},
        TypeError,
        "not both",
    ),
    "a missing field": (
        ("user.created", {"age": 36}),
        {},
        InvalidEventError,
        "user_id: Field required",
    ),
    "an unknown field": (
        ("user.created", {**GOOD, "shoe": 42}),
        {},
        InvalidEventError,
        "shoe: Extra inputs are not permitted",
    ),
    "a wrong type": (
        ("user.created", {**GOOD, "age": "many"}),
        {},
        InvalidEventError,
        "age: Input should be a valid integer",
    ),
    "no mapping": (
        ("user.created", "u-1"),
        {},
        InvalidEventError,
        "payload: must be a mapping of its fields, not str",
    ),
    "no data": (("user.created",), {}, InvalidEventError, "age: Field required"),
    "a payload over the limit": (
        ("user.created", {**GOOD, "note": "x" * MIB}),
        {},
        PayloadTooLargeError,
        f"the limit is {MIB - 4096}",
    ),
    "headers over the limit": (
        ("user.created", GOOD),
        {"headers": {"x-note": "x" * MIB}},
        PayloadTooLargeError,
        "with its headers",
    ),
    "a header's name that ends the line": (
        ("user.created", GOOD),
        {"headers": {"x-a: 1\r\nNats-Msg-Id": "2"}},
        HeaderError,
        "isn't a header name",
    ),
    "a header of the server": (
        ("user.created", GOOD),
        {"headers": {"Nats-Rollup": "all"}},
        HeaderError,
        "is reserved for the bus",
    ),
    "an id that ends the line": (
        ("user.created", GOOD),
        {"id": "1\r\nNats-Rollup: all"},
        InvalidEventError,
        "id: must be a string of 1 to 128 printable ASCII characters",
    ),
    "an option that isn't there": (
        ("user.created", GOOD),
        {"idd": "1"},
        TypeError,
        "emit() has no option 'idd' (it has id, key, headers",
    ),
}


@pytest.mark.parametrize(("given", "options", "error", "words"), EMITS.values(), ids=list(EMITS))
async def test_what_cant_be_emitted_is_refused_and_the_next_event_is_handled(
    nats_server: NatsServer,
    shop: Shop,
    given: tuple[Any, ...],
    options: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    with pytest.raises(error, match=re.escape(words)):
        await shop.events.emit(*given, **options)

    await shop.events.emit("user.created", GOOD, id="good")
    await shop.until_given("good")
    assert await stored_ids(nats_server.url) == ["good"]


async def test_a_header_value_cant_become_a_header(nats_server: NatsServer, shop: Shop) -> None:
    value = "a\r\nNats-Rollup: all\r\n\r\n\x00ü"

    await shop.events.emit("user.created", GOOD, id="first")
    receipt = await shop.events.emit("user.created", GOOD, id="second", headers={"x-note": value})

    async with plain(nats_server.url) as client:
        stored = await client.jetstream().get_msg(receipt.stream, receipt.sequence)
    assert stored.headers is not None
    assert stored.headers["x-note"] == "a%0D%0ANats-Rollup:%20all%0D%0A%0D%0A%00%C3%BC"
    assert "Nats-Rollup" not in stored.headers
    await shop.until_given("first", "second")


async def test_an_odd_id_is_the_same_everywhere_and_stored_once(
    nats_server: NatsServer, shop: Shop
) -> None:
    odd = "50%/a:b"

    first = await shop.events.emit("user.created", GOOD, id=odd)
    again = await shop.events.emit("user.created", GOOD, id=first.id)

    await shop.until_given(odd)
    assert (first.id, again.id, again.duplicate) == (odd, odd, True)
    assert await stored_ids(nats_server.url) == ["50%25/a:b"]


def test_a_listener_given_to_subscribe_without_an_event_is_refused() -> None:
    events = EventService("shop")

    with pytest.raises(DeclarationError, match=r"write @events\.subscribe\(UserCreated\)"):

        @events.subscribe  # type: ignore[call-overload]
        async def welcome(event: UserCreated) -> None: ...


# What others publish ---------------------------------------------------------------------------

HEADERS = {"ce-id": "bad", "ce-type": "user.created"}
ARRIVES: dict[str, tuple[dict[str, str] | None, bytes, str]] = {
    "no headers": (None, BODY, "header ce-id is missing"),
    "no type": ({"ce-id": "bad"}, BODY, "header ce-type is missing"),
    "an id that is none": (
        {**HEADERS, "ce-id": "a%0Ab"},
        BODY,
        "ce-id must be 1 to 128 printable ASCII characters",
    ),
    "the type of another event": (
        {**HEADERS, "ce-type": "user.deleted"},
        BODY,
        "ce-type is 'user.deleted', the subject says 'user.created'",
    ),
    "another media type": (
        {**HEADERS, "content-type": "application/xml"},
        b"<user/>",
        "content-type is 'application/xml', not application/json",
    ),
    "a body that isn't JSON": (HEADERS, b"user u-1", "Invalid JSON"),
    "no body": (HEADERS, b"", "Invalid JSON"),
    "a body that isn't text": (HEADERS, b'{"user_id": "\xff", "age": 36}', "Invalid JSON"),
    "a missing field": (HEADERS, b'{"age": 36}', "user_id: Field required"),
    "a wrong type": (HEADERS, b'{"user_id": "u-1", "age": "many"}', "age: Input should be"),
    "no object": (HEADERS, b'["u-1", 36]', "payload: Input should be an object"),
    "brackets without end": (HEADERS, b"[" * 100_000, "Invalid JSON: recursion limit exceeded"),
}


@pytest.mark.parametrize(("headers", "body", "words"), ARRIVES.values(), ids=list(ARRIVES))
async def test_a_message_that_isnt_the_event_is_a_dead_letter_and_the_next_one_is_handled(
    nats_server: NatsServer,
    shop: Shop,
    headers: dict[str, str] | None,
    body: bytes,
    words: str,
) -> None:
    async with plain(nats_server.url) as client:
        stranger = client.jetstream()
        await stranger.publish("events.user.created", body, headers=headers)
        await stranger.publish("events.user.created", BODY, headers={**HEADERS, "ce-id": "good"})

        await shop.until_given("good")
        letters = "events-dlq.shop.take.user.created"

        async def is_kept() -> bool:
            return (await stranger.stream_info("EVENTS_DLQ")).state.messages == 1

        await eventually(is_kept)
        letter = await stranger.get_last_msg("EVENTS_DLQ", letters)

    assert letter.headers is not None
    assert (letter.data or b"") == body
    assert letter.headers["Eventbus-Dead-Reason"] == "invalid"
    assert words in letter.headers["Eventbus-Dead-Error-Message"].replace("%20", " ")
    assert shop.given == ["good"]


# The server ------------------------------------------------------------------------------------

Place = Callable[[Path], AbstractAsyncContextManager[dict[str, Any]]]


@asynccontextmanager
async def without_jetstream(_: Path) -> AsyncIterator[dict[str, Any]]:
    with NatsServer(jetstream=False) as server:
        yield {"url": server.url}


@asynccontextmanager
async def that_is_too_old(_: Path) -> AsyncIterator[dict[str, Any]]:
    with NatsServer() as server:
        async with Line(server) as line:
            line.back = lambda data: re.sub(rb'"level":\d', b'"level":1', data)
            yield {"url": line.url}


@asynccontextmanager
async def with_another_password(_: Path) -> AsyncIterator[dict[str, Any]]:
    with NatsServer(config='authorization { user: "ada", password: "right" }') as server:
        yield {"url": server.url, "nats_user": "ada", "nats_password": "wrong"}


@asynccontextmanager
async def with_an_expired_certificate(folder: Path) -> AsyncIterator[dict[str, Any]]:
    authority = Authority(folder)
    cert, key = authority.issue("old", days=-1)
    with NatsServer(config=f'tls {{ cert_file: "{cert}", key_file: "{key}" }}') as server:
        yield {"url": server.url, "tls_ca": authority.path}


@asynccontextmanager
async def with_a_stream_of_somebody_else(_: Path) -> AsyncIterator[dict[str, Any]]:
    with NatsServer() as server:
        async with plain(server.url) as client:
            await client.jetstream().add_stream(name="EVENTS", subjects=["theirs.>"])
        yield {"url": server.url}


@asynccontextmanager
async def with_our_subjects_in_another_stream(_: Path) -> AsyncIterator[dict[str, Any]]:
    with NatsServer() as server:
        async with plain(server.url) as client:
            await client.jetstream().add_stream(name="LEGACY", subjects=["events.user.*"])
        yield {"url": server.url}


@asynccontextmanager
async def of_another_cluster(_: Path) -> AsyncIterator[dict[str, Any]]:
    with NatsServer() as server:
        yield {"url": server.url, "cluster_name": "production"}


REFUSED: list[tuple[Place, type[EventBusError], str, str]] = [
    (
        without_jetstream,
        NoJetStreamError,
        "configuration.no_jetstream",
        "JetStream isn't enabled on 127.0.0.1",
    ),
    (
        that_is_too_old,
        ServerTooOldError,
        "configuration.server_too_old",
        "nats-server 2.11 is too old, eventbus needs 2.12 or newer",
    ),
    (
        with_another_password,
        NotAuthorizedError,
        "driver.not_authorized",
        "refused the credentials",
    ),
    (
        with_an_expired_certificate,
        CertificateError,
        "driver.certificate",
        "certificate has expired",
    ),
    (
        with_a_stream_of_somebody_else,
        TopologyError,
        "configuration.topology",
        "stream EVENTS: belongs to somebody else",
    ),
    (
        with_our_subjects_in_another_stream,
        TopologyError,
        "configuration.topology",
        "overlaps with stream LEGACY",
    ),
    (
        of_another_cluster,
        SettingsError,
        "configuration.settings",
        "EVENTBUS_CLUSTER_NAME is 'production'",
    ),
]


@pytest.mark.parametrize(
    ("place", "error", "code", "words"), REFUSED, ids=[row[0].__name__ for row in REFUSED]
)
async def test_a_server_the_bus_cant_work_on_is_refused_at_once_with_the_reason(
    tmp_path: Path, place: Place, error: type[EventBusError], code: str, words: str
) -> None:
    async with place(tmp_path) as settings:
        shop = Shop(**settings)

        began = time.monotonic()
        with pytest.raises(error, match=re.escape(words)) as raised:
            await shop.events.start()

        assert time.monotonic() - began < 30
        assert raised.value.code == code
        assert shop.events.status().problems == ("service 'shop' isn't started",)


@pytest.mark.slow
async def test_a_server_that_is_down_at_the_start_is_waited_for() -> None:
    port = free_port()
    shop = Shop(f"nats://127.0.0.1:{port}")

    async with asyncio.TaskGroup() as group:
        starting = group.create_task(shop.events.start())
        await eventually(lambda: _says(shop, "Connect call failed"))
        with pytest.raises(NotConnectedError, match="wasn't sent: no connection"):
            await shop.events.emit("user.created", GOOD)

        with NatsServer(port=port):
            await starting
            await shop.events.emit("user.created", GOOD, id="good")
            await shop.until_given("good")
            await shop.events.stop()


async def _says(shop: Shop, words: str) -> bool:
    return any(words in problem for problem in shop.events.status().problems)


@pytest.mark.slow
async def test_a_server_that_is_killed_and_restarted_under_load_costs_no_event(
    nats_server: NatsServer,
) -> None:
    shop = Shop(nats_server.url, emit_timeout=15)
    ids = [f"id-{number}" for number in range(600)]
    left = iter(ids)
    emitted = 0
    third = asyncio.Event()

    async def emitter() -> None:
        nonlocal emitted
        for id in left:
            await shop.events.emit("user.created", GOOD, id=id)
            emitted += 1
            if emitted >= len(ids) // 3:
                third.set()

    async with shop.events:
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(emitter())
            await third.wait()
            nats_server.kill()
            await asyncio.to_thread(nats_server.restart)
        await shop.until_given(*ids)

    assert emitted == len(ids)
    assert sorted(await stored_ids(nats_server.url)) == sorted(ids)
