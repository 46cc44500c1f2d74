"""The outbox in a SQL database, as its relays see it."""

import asyncio
import fcntl
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    any_,
    delete,
    func,
    literal,
    select,
    text,
    true,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from eventbus.clock import Clock
from eventbus.errors import StoreError
from eventbus.stores.base import OutboxState, Row
from eventbus.stores.sql.engine import reading, seed_lanes, translated
from eventbus.stores.sql.rows import READ, row_of
from eventbus.stores.sql.tables import LANES, lanes, outbox
from eventbus.stores.sql.wakeup import watch

__all__ = ("SqlClaim", "SqlOutbox")

AT_ONCE = LANES // 2
"""How many lanes one claim takes, so that two relays share the work."""
FROZEN = "90s"
"""After this a relay that holds its lanes and does nothing loses them; a batch takes less."""
_c = outbox.c
_PREPARED = text(
    # A relay that is frozen would keep its lanes for ever; one that is while it reads its rows
    # isn't idle. Servers on other systems can't have that, and log each time that they can't.
    "SELECT set_config('idle_in_transaction_session_timeout', :frozen, true), "
    "set_config('tcp_user_timeout', "
    "CASE WHEN strpos(version(), 'linux') > 0 THEN :frozen ELSE '0' END, true), "
    # An outbox is mostly empty. Statistics of that time have PostgreSQL sort the whole of a
    # backlog for each claim, where the indices give it in order. Such a plan looks dear, so
    # that it would be compiled, which costs more than running it.
    "set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), "
    "set_config('enable_sort', 'off', true), set_config('jit', 'off', true)"
)


class SqlClaim:
    """Rows of some lanes, and what becomes of them."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self._done: list[int] = []
        self._refused: list[int] = []
        self._quarantined: dict[int, str] = {}

    def done(self, row: Row) -> None:
        """Have a row removed: the stream has its event."""
        self._done.append(row.sequence)

    def refused(self, row: Row) -> None:
        """Count a try."""
        self._refused.append(row.sequence)

    def quarantine(self, row: Row, reason: str) -> None:
        """Set a row aside, so that it holds up nothing any more."""
        self._quarantined[row.sequence] = reason

    async def write(self, connection: AsyncConnection, clock: Clock) -> None:
        """Write what became of them."""
        if self._done:
            gone = _among(_c.sequence, self._done, connection.dialect.name)
            await connection.execute(delete(outbox).where(gone))
        if self._refused:
            those = _among(_c.sequence, self._refused, connection.dialect.name)
            await connection.execute(update(outbox).where(those).values(tries=_c.tries + 1))
        for sequence, reason in self._quarantined.items():
            await connection.execute(
                update(outbox)
                .where(_c.sequence == sequence)
                .values(quarantined_at=clock.now(), reason=reason)
            )


def _among(
    column: ColumnElement[int], numbers: Sequence[int], dialect: str
) -> ColumnElement[bool]:
    if dialect == "postgresql":  # one parameter, and so one prepared statement
        return column == any_(literal(list(numbers), ARRAY(BigInteger)))
    return column.in_(numbers)


class SqlOutbox:
    """Hands out rows so that a key's are in one hand at a time.

    PostgreSQL: a claim locks lanes (``FOR UPDATE SKIP LOCKED``) until it is written, so several
    relays share the work, and what a relay held is free as soon as its connection is gone.
    SQLite: no transaction is open meanwhile, since it would hold up every other writer; of the
    relays of one service one works at a time, which holds a file's lock, and others stand by.

    Args:
        engine: The database; its tables are there.
        source: Only what this service emitted; everything where empty.
        clock: Stamps what is quarantined.
    """

    def __init__(self, engine: AsyncEngine, clock: Clock, *, source: str = "") -> None:
        self._engine = engine
        self._reading = reading(engine)
        self._clock = clock
        self._source = source
        self._postgres = engine.dialect.name == "postgresql"
        self._turn = -1

    @asynccontextmanager
    async def claim(
        self, limit: int, blocked: Sequence[str | int] = ()
    ) -> AsyncGenerator[SqlClaim]:
        """Give up to ``limit`` rows; see `eventbus.stores.base.OutboxStore`."""
        which = self._waiting(blocked)
        with translated("the outbox"):
            if self._postgres:
                async with self._locked(which, limit) as claim:
                    yield claim
            elif self._take_turn():
                async with self._read(which, limit) as claim:
                    yield claim
            else:
                yield SqlClaim(())

    async def watch(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` after each commit that may have brought rows, until cancelled."""
        try:
            await watch(self._reading, wake)
        except Exception as exc:  # what the driver below SQLAlchemy raises
            raise StoreError(f"watching the outbox failed: {type(exc).__name__}: {exc}") from exc

    async def state(self) -> OutboxState:
        """Count what waits and what is quarantined."""
        mine = [_c.source == self._source] if self._source else []
        waiting = _c.quarantined_at.is_(None)
        with translated("the outbox"):
            async with self._reading.connect() as connection:
                pending, oldest = (
                    await connection.execute(
                        select(func.count(), func.min(_c.created_at)).where(waiting, *mine)
                    )
                ).one()
                quarantined = await connection.scalar(
                    select(func.count()).where(_c.quarantined_at.is_not(None), *mine)
                )
        age = 0.0 if oldest is None else (self._clock.now() - oldest).total_seconds()
        return OutboxState(int(pending), max(0.0, age), int(quarantined or 0))

    async def prepare(self) -> None:
        """Write the rows of the lanes where a migration has made their table alone.

        Raises:
            StoreError: The tables aren't there, or the database can't be asked now.
        """
        with translated("the outbox"):
            async with self._engine.begin() as connection:
                await connection.run_sync(seed_lanes)

    def close(self) -> None:
        """Give up the turn."""
        if self._turn >= 0:
            os.close(self._turn)
            self._turn = -1

    def _waiting(self, blocked: Sequence[str | int]) -> tuple[ColumnElement[bool], ...]:
        keys = [one for one in blocked if isinstance(one, str)]
        sequences = [one for one in blocked if isinstance(one, int)]
        which: list[ColumnElement[bool]] = [_c.quarantined_at.is_(None)]
        if self._source:
            which.append(_c.source == self._source)
        if keys:
            which.append(_c.key.is_(None) | _c.key.not_in(keys))
        if sequences:
            which.append(_c.sequence.not_in(sequences))
        return tuple(which)

    @asynccontextmanager
    async def _locked(
        self, which: tuple[ColumnElement[bool], ...], limit: int
    ) -> AsyncGenerator[SqlClaim]:
        async with self._engine.connect() as connection:
            await connection.execute(_PREPARED, {"frozen": FROZEN})
            # A scalar with a limit, which the planner can't turn into a join of all rows.
            waits = select(true()).where(_c.lane == lanes.c.lane, *which).limit(1)
            held = select(lanes.c.lane).where(waits.scalar_subquery())
            # By chance, so that two relays don't go for the same ones, nor starve others.
            held = held.order_by(func.random()).limit(AT_ONCE).with_for_update(skip_locked=True)
            mine = (await connection.scalars(held)).all()
            # In a statement of its own: it sees what the last holder of these lanes removed.
            which = (_among(_c.lane, mine, "postgresql"), *which)
            claim = SqlClaim(await self._rows(connection, which, limit) if mine else ())
            try:
                yield claim
            finally:
                await self._settle(claim, connection)

    @asynccontextmanager
    async def _read(
        self, which: tuple[ColumnElement[bool], ...], limit: int
    ) -> AsyncGenerator[SqlClaim]:
        async with self._reading.connect() as connection:
            claim = SqlClaim(await self._rows(connection, which, limit))
            await connection.rollback()
            try:
                yield claim
            finally:
                await self._settle(claim, connection)

    async def _settle(self, claim: SqlClaim, connection: AsyncConnection) -> None:
        """Write what became of the rows, also where the relay is cancelled before or meanwhile.

        What the stream has mustn't stay.
        """
        failures: list[Exception] = []

        async def write() -> None:
            try:
                await claim.write(connection, self._clock)
                await connection.commit()
            except Exception as exc:  # noqa: BLE001 - raised below, not as a group
                failures.append(exc)

        async with asyncio.TaskGroup() as group:
            writing = group.create_task(write())
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                await writing  # a second cancellation ends this too
                raise
        for failure in failures:
            raise failure

    async def _rows(
        self,
        connection: AsyncConnection,
        which: tuple[ColumnElement[bool], ...],
        limit: int,
    ) -> list[Row]:
        query = select(*READ).where(*which).order_by(_c.sequence).limit(limit)
        return [row_of(tuple(one)) for one in await connection.execute(query)]

    def _take_turn(self) -> bool:
        """Take the lock of a file beside the database, which ends with this process.

        There is one for each service, and one for the relays of all: whoever held a common one
        would never let the events of another service go. A relay of all beside that of a service
        publishes some events twice, under one id, and each key's in the same order.
        """
        database = self._engine.url.database
        if self._turn >= 0 or not database or database == ":memory:":
            return True
        path = Path(f"{database}-relay{self._source and '-'}{self._source}")
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return False
        self._turn = file
        return True
