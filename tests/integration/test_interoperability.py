"""Programs that know nothing of this package read our events, and emit events for our listeners."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nats.aio.client import Client

from eventbus import Context, Event, EventService
from eventbus.embedded import NatsServer
from tests.integration.rig import plain, settings_of

pytestmark = pytest.mark.nats

GUIDE = Path(__file__).parents[2] / "docs/guide/wire.md"
READ, EMIT = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
WRITTEN = {
    "ce-id": "id-1",
    "ce-source": "shop",
    "ce-specversion": "1.0",
    "ce-type": "user.created",
    "ce-dataschema": "user.created/v1",
    "ce-correlationid": "story-1",
    "ce-kind": "event",
    "ce-partitionkey": "u%201",
    "ce-tags": "crm,eu",
    "content-type": "application/json",
    "Nats-Msg-Id": "id-1",
    "x-tenant": "M%C3%BCller%20&%20Co",
}


class UserCreated(Event, name="user.created", key="user_id", tags=("crm", "eu")):
    user_id: str
    email: str


class Listening:
    """A service of ours, and what its listener was given."""

    def __init__(self, url: str) -> None:
        self.events = EventService("shop", settings=settings_of(url))
        self._given: asyncio.Queue[tuple[UserCreated, Context]] = asyncio.Queue()
        self.events.subscribe(UserCreated, self.welcome)

    async def welcome(self, event: UserCreated, context: Context) -> None:
        self._given.put_nowait((event, context))

    async def given(self) -> tuple[UserCreated, Context]:
        async with asyncio.timeout(30):
            return await self._given.get()


@pytest.fixture
async def shop(nats_server: NatsServer) -> AsyncIterator[Listening]:
    listening = Listening(nats_server.url)
    async with listening.events:
        yield listening


@pytest.fixture
async def stranger(nats_server: NatsServer) -> AsyncIterator[Client]:
    """Give a plain nats-py client."""
    async with plain(nats_server.url) as client:
        yield client


async def ran(program: str, folder: Path, *arguments: str) -> list[str]:
    """Run a program of the guide in a process of its own; return the words that it prints."""
    file = folder / "program.py"
    file.write_text(f"{program}\nassert 'eventbus' not in sys.modules\n")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", str(file), *arguments),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode().split()


async def test_the_guides_reader_reads_what_we_emit(
    nats_server: NatsServer, shop: Listening, tmp_path: Path
) -> None:
    receipt = await shop.events.emit(
        UserCreated(user_id="u-1", email="ada@example.org"), correlation_id="story-1"
    )

    printed = await ran(READ, tmp_path, nats_server.url, "1")

    assert printed == [receipt.id, "user.created", "story-1", "ada@example.org"]


async def test_the_guides_emitter_is_heard_by_our_listener(
    nats_server: NatsServer, shop: Listening, tmp_path: Path
) -> None:
    event_id, stream, sequence = await ran(
        EMIT, tmp_path, nats_server.url, "u-1", "grace@example.org"
    )

    event, context = await shop.given()
    assert event == UserCreated(user_id="u-1", email="grace@example.org")
    assert (context.id, context.correlation_id) == (event_id, event_id)
    assert (context.stream, str(context.sequence)) == (stream, sequence)
    assert (context.attempt, context.source, context.version) == (1, "", 1)


async def test_what_we_emit_is_on_the_wire_as_the_guide_says(
    shop: Listening, stranger: Client
) -> None:
    one = UserCreated(user_id="u 1", email="ada@example.org")
    before = datetime.now(UTC)  # noqa: TID251 - the service's clock is the machine's
    receipt = await shop.events.emit(
        one, id="id-1", correlation_id="story-1", headers={"X-Tenant": "Müller & Co"}
    )

    stored = await stranger.jetstream().get_msg(receipt.stream, receipt.sequence)

    headers = dict(stored.headers or {})
    emitted_at = datetime.fromisoformat(headers.pop("ce-time"))
    assert (receipt.stream, stored.subject) == ("EVENTS", "events.user.created")
    assert headers == WRITTEN
    assert (emitted_at - before).total_seconds() < 60
    assert json.loads(stored.data or b"") == {"user_id": "u 1", "email": "ada@example.org"}


async def test_each_header_that_the_guide_names_reaches_a_listener(
    shop: Listening, stranger: Client
) -> None:
    # In another case of letters, as other clients write them, and with a field that is newer.
    headers = {
        "Ce-Id": "theirs-1",
        "CE-TYPE": "user.created",
        "Ce-Source": "billing%20system",
        "Ce-Time": "2026-05-04T03:02:01+02:00",
        "Ce-Dataschema": "user.created/v2",
        "Content-Type": "application/json; charset=utf-8",
        "Ce-Correlationid": "story-1",
        "Ce-Causationid": "cause-1",
        "Ce-Partitionkey": "u-1",
        "Ce-Tags": "eu,crm",
        "Traceparent": TRACEPARENT,
        "X-Tenant": "M%C3%BCller",
    }
    body = b'{"user_id": "u-1", "email": "g@example.org", "plan": "gold"}'

    await stranger.jetstream().publish("events.user.created", body, headers=headers)

    event, context = await shop.given()
    assert event == UserCreated(user_id="u-1", email="g@example.org")
    assert (context.id, context.name, context.version) == ("theirs-1", "user.created", 2)
    assert (context.source, context.key) == ("billing system", "u-1")
    assert context.time == datetime(2026, 5, 4, 1, 2, 1, tzinfo=UTC)
    assert (context.correlation_id, context.causation_id) == ("story-1", "cause-1")
    assert (context.tags, context.trace) == (("eu", "crm"), {"traceparent": TRACEPARENT})
    assert context.headers == {"x-tenant": "Müller"}


@pytest.mark.parametrize("name", ["x-correlation-id", "correlation_id"])
async def test_the_correlation_id_of_another_system_is_taken_over(
    shop: Listening, stranger: Client, name: str
) -> None:
    headers = {"ce-id": "theirs-1", "ce-type": "user.created", name: "story-1"}
    body = b'{"user_id": "u-1", "email": "g@example.org"}'

    await stranger.jetstream().publish("events.user.created", body, headers=headers)

    _, context = await shop.given()
    assert context.correlation_id == "story-1"


async def test_what_a_listener_makes_of_a_strangers_event_goes_on_with_its_story(
    nats_server: NatsServer, stranger: Client, tmp_path: Path
) -> None:
    class EmailSent(Event, name="email.sent"):
        to: str

    mailer = EventService("mailer", settings=settings_of(nats_server.url))
    sent = asyncio.Event()

    @mailer.subscribe(UserCreated)
    async def welcome(event: UserCreated) -> None:
        await mailer.emit(EmailSent(to=event.email))
        sent.set()

    async with mailer, asyncio.timeout(30):
        event_id, *_ = await ran(EMIT, tmp_path, nats_server.url, "u-1", "g@example.org")
        await sent.wait()

    stored = await stranger.jetstream().get_last_msg("EVENTS", "events.email.sent")
    headers = dict(stored.headers or {})
    assert (headers["ce-correlationid"], headers["ce-causationid"]) == (event_id, event_id)
    assert headers["ce-source"] == "mailer"
