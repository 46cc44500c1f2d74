"""The inbox: a listener's effects in the database happen once, whatever is delivered how often."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from eventbus import Context, Event, EventService, Retry
from eventbus.delivery import Outcome
from eventbus.embedded import NatsServer
from eventbus.errors import DeclarationError
from eventbus.stores.sql.engine import opened, reading
from eventbus.stores.sql.inbox import prune_inbox
from eventbus.stores.sql.tables import inbox
from eventbus.telemetry.signals import Happened, Settled
from tests.faults.harness.pace import patience
from tests.integration.ledger import Paid, bookings, database, stored, until
from tests.integration.rig import plain, settings_of

pytestmark = pytest.mark.nats

Book = Callable[[Paid, Context], Awaitable[None]]


class Seen:
    """Remembers how deliveries ended."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def __call__(self, happened: Happened) -> None:
        if isinstance(happened, Settled):
            self.outcomes.append(happened.outcome)

    async def until(self, *outcomes: Outcome) -> None:
        async def reached() -> bool:
            return self.outcomes == list(outcomes)

        await until(reached, f"{outcomes} expected")


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    async with database(database_url) as engine:
        yield engine


async def booked(engine: AsyncEngine) -> int:
    async with reading(engine).connect() as connection:
        return await connection.scalar(select(func.count()).select_from(bookings)) or 0


async def book(event: Paid, context: Context) -> None:
    await context.session.execute(insert(bookings), {"account": event.account})


def bank(
    server: str, url: str, listener: Book, seen: Seen, *, kv: bool = False, attempts: int = 3
) -> EventService:
    settings = settings_of(server, store_url=url, provision="auto")
    events = EventService("bank", settings=settings, observers=[seen])
    retry = Retry(attempts=attempts, start=0.01)
    events.subscribe(
        Paid, listener, name="book", retry=retry, inbox="kv" if kv else True, ack_wait=1
    )
    return events


async def again(server: str) -> None:
    """Store the first event of the stream once more, as a redelivery after its ack was lost."""
    async with plain(server) as client:
        manager = client.jetstream()
        message = await manager.get_msg("EVENTS", 1)
        headers = {k: v for k, v in (message.headers or {}).items() if k != "Nats-Msg-Id"}
        await manager.publish(message.subject or "", message.data or b"", headers=headers)


async def test_an_event_that_comes_again_has_its_effect_once(
    nats_server: NatsServer, database_url: str, engine: AsyncEngine
) -> None:
    seen = Seen()

    async with bank(nats_server.url, database_url, book, seen) as events:
        await events.emit(Paid(account="a", number=1))
        await seen.until(Outcome.OK)
        await again(nats_server.url)
        await seen.until(Outcome.OK, Outcome.DUPLICATE)

    assert await booked(engine) == 1


async def test_effects_of_a_run_that_fails_are_rolled_back_and_the_next_one_has_them(
    nats_server: NatsServer, database_url: str, engine: AsyncEngine
) -> None:
    seen = Seen()

    async def fail_first(event: Paid, context: Context) -> None:
        await book(event, context)
        if context.attempt == 1:
            raise RuntimeError("after the effect")

    async with bank(nats_server.url, database_url, fail_first, seen) as events:
        await events.emit(Paid(account="a", number=1))
        await seen.until(Outcome.RETRY, Outcome.OK)

    assert await booked(engine) == 1


async def test_of_two_runs_at_the_same_time_one_commits(
    nats_server: NatsServer, database_url: str, engine: AsyncEngine
) -> None:
    seen, both = Seen(), asyncio.Barrier(2)

    async def meet(event: Paid, context: Context) -> None:
        async with asyncio.timeout(20 * patience()):
            await both.wait()
        await book(event, context)

    async with bank(nats_server.url, database_url, meet, seen) as events:
        await events.emit(Paid(account="a", number=1))
        await again(nats_server.url)
        await until(lambda: _count(seen, 2), "both settle")

    assert sorted(seen.outcomes) == sorted([Outcome.OK, Outcome.DUPLICATE])
    assert await booked(engine) == 1


async def _count(seen: Seen, wanted: int) -> bool:
    return len([one for one in seen.outcomes if one is not Outcome.RETRY]) == wanted


async def test_what_it_emits_goes_with_its_effects_or_not_at_all(
    nats_server: NatsServer, database_url: str, engine: AsyncEngine
) -> None:
    seen = Seen()

    async def pass_on(event: Paid, context: Context) -> None:
        if event.number > 10:
            return
        await book(event, context)
        receipt = await context.emit(Paid(account="b", number=event.number + 10))
        assert receipt.pending
        if context.attempt == 1:
            raise RuntimeError("after the emit")

    async with bank(nats_server.url, database_url, pass_on, seen) as events:
        await events.emit(Paid(account="a", number=1))
        await until(lambda: _count(seen, 2), "the event and what it caused settle")

    assert [one.number for one in await stored(nats_server.url)] == [1, 11]
    assert await booked(engine) == 1


async def test_a_dead_letter_leaves_no_mark_so_that_a_redrive_runs_the_listener(
    nats_server: NatsServer, database_url: str, engine: AsyncEngine
) -> None:
    seen = Seen()

    async def fail(event: Paid, context: Context) -> None:
        await book(event, context)
        raise RuntimeError("never")

    async with bank(nats_server.url, database_url, fail, seen, attempts=1) as events:
        await events.emit(Paid(account="a", number=1))
        await seen.until(Outcome.DEAD)

    async with reading(engine).connect() as connection:
        marks = await connection.scalar(select(func.count()).select_from(inbox))
    assert (marks, await booked(engine)) == (0, 0)


async def test_marks_are_pruned_by_age(
    nats_server: NatsServer, database_url: str, engine: AsyncEngine
) -> None:
    seen = Seen()
    async with bank(nats_server.url, database_url, book, seen) as events:
        first = await events.emit(Paid(account="a", number=1))
        await seen.until(Outcome.OK)

    async with reading(engine).connect() as connection:
        marked = (await connection.execute(select(inbox.c.id, inbox.c.handled_at))).one()
    early = await prune_inbox(engine, marked.handled_at)
    late = await prune_inbox(engine, marked.handled_at.replace(year=2100))

    assert marked.id == first.id
    assert (early, late) == (0, 1)


async def test_without_the_table_of_marks_it_refuses_to_start_and_says_what_makes_it(
    nats_server: NatsServer, database_url: str
) -> None:
    async with opened(database_url):
        with pytest.raises(DeclarationError, match="eventbus store init"):
            await bank(nats_server.url, database_url, book, Seen()).start()


async def test_marks_on_the_server_skip_what_was_handled(nats_server: NatsServer) -> None:
    seen, handled = Seen(), []

    async def note(event: Paid, context: Context) -> None:
        handled.append(event.number)
        with pytest.raises(DeclarationError, match="inbox=True"):
            _ = context.session

    url = "sqlite+aiosqlite:///nowhere.db"
    async with bank(nats_server.url, url, note, seen, kv=True) as events:
        await events.emit(Paid(account="a", number=1))
        await seen.until(Outcome.OK)
        await again(nats_server.url)
        await seen.until(Outcome.OK, Outcome.DUPLICATE)

    assert handled == [1]


@pytest.mark.parametrize("kv", [False, True], ids=["sql", "kv"])
async def test_a_replay_passes_marks_only_when_it_is_asked_to(
    nats_server: NatsServer, database_url: str, engine: AsyncEngine, kv: bool
) -> None:
    seen, runs = Seen(), list[bool]()

    async def note(event: Paid, context: Context) -> None:
        runs.append(context.is_replay)
        if not kv:
            await book(event, context)

    async with bank(nats_server.url, database_url, note, seen, kv=kv) as events:
        await events.emit(Paid(account="a", number=1))
        await seen.until(Outcome.OK)
        await events.replay("book", "all")
        assert seen.outcomes == [Outcome.OK, Outcome.DUPLICATE]
        for _ in range(2):
            await events.replay("book", "all", again=True)
        await again(nats_server.url)
        await seen.until(Outcome.OK, Outcome.DUPLICATE, Outcome.OK, Outcome.OK, Outcome.DUPLICATE)

    assert runs == [False, True, True]
    assert await booked(engine) == (0 if kv else 3)


async def test_in_a_replay_that_passes_marks_a_redelivery_is_known(
    nats_server: NatsServer, database_url: str, engine: AsyncEngine
) -> None:
    seen = Seen()

    async with bank(nats_server.url, database_url, book, seen) as events:
        await events.emit(Paid(account="a", number=1))
        await again(nats_server.url)
        await until(lambda: _count(seen, 2), "both settle")
        await events.replay("book", "all", again=True)

    assert sorted(seen.outcomes[2:]) == sorted([Outcome.OK, Outcome.DUPLICATE])
    assert await booked(engine) == 2


@pytest.mark.parametrize("wrong", ["sqlite", 1.5])
def test_an_inbox_that_there_isnt_is_refused(wrong: object) -> None:
    events = EventService("bank")

    async def listen(event: Event) -> None: ...

    with pytest.raises(DeclarationError, match="inbox="):
        events.subscribe("payment.paid", listen, inbox=wrong)  # type: ignore[call-overload]
