"""A transaction of the user's that emits take part in, through SQLAlchemy."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TypeAlias

from sqlalchemy import Connection, Transaction, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, SessionTransaction, scoped_session
from sqlalchemy.util import await_only

from eventbus.envelope import Message
from eventbus.errors import DeclarationError, StoreError
from eventbus.stores.base import IN_OUTBOX, Deferred, outside_transactions, within
from eventbus.stores.sql.rows import insertion
from eventbus.stores.sql.tables import outbox

__all__ = ("AfterCommit", "Asked", "Later", "SqlTransaction", "taking_part")

_Async: TypeAlias = AsyncSession | AsyncConnection | async_scoped_session[AsyncSession]
Asked: TypeAlias = _Async | Session | Connection | scoped_session[Session]
"""What a transaction may be given as; the caller begins, commits and rolls it back."""
Later: TypeAlias = Callable[[Sequence[Deferred]], None]
"""Takes what has to be done after a commit that nobody awaits."""
_TAKEN = (
    AsyncSession,
    AsyncConnection,
    async_scoped_session,
    Session,
    Connection,
    scoped_session,
)
_AFTER = "eventbus_after_commit"


@asynccontextmanager
async def taking_part(asked: Asked, later: Later, *, notify: bool) -> AsyncGenerator[None]:
    """Let the emits of a block take part in a transaction.

    Raises:
        TypeError: It is no session and no connection.
    """
    if not isinstance(asked, _TAKEN):
        raise TypeError(
            "transaction() takes a session or connection of SQLAlchemy, as from "
            f"engine.begin() or a sessionmaker, not {asked!r}"
        )
    transaction = SqlTransaction(asked, later, notify=notify)
    try:
        with within(transaction):
            yield
    finally:
        transaction.close()


class SqlTransaction:
    """Emits of one block go into the transaction that a session or connection is in.

    It never begins, commits or rolls back: savepoints and nested blocks follow their root.
    """

    def __init__(self, asked: Asked, later: Later, *, notify: bool = True) -> None:
        self._asked = asked
        self._later = later
        self._notify = notify
        # A connection does one thing at a time, and emits may be gathered.
        self._lock = asyncio.Lock()
        self._told_in: Transaction | None = None
        self._after: AfterCommit | None = None
        self.is_open = True
        self.carrier = IN_OUTBOX
        self.table = outbox.name
        self.driver: object | None = None

    def close(self) -> None:
        """Take no more; what was taken goes with its transaction."""
        self.is_open = False

    async def add(self, message: Message, *, publish_at: datetime | None = None) -> int:
        """Store a message in it and return its place in the outbox.

        What the database raises is raised as it is, for the caller's own way of trying again.

        Raises:
            StoreError: The table isn't there.
        """
        asked = self._asked
        try:
            match asked:
                case AsyncSession() | AsyncConnection():
                    async with self._lock:
                        return await asked.run_sync(self._store, message, publish_at)
                case async_scoped_session():
                    async with self._lock:
                        return await asked().run_sync(self._store, message, publish_at)
                case scoped_session():
                    return self._store(asked(), message, publish_at)
                case _:
                    return self._store(asked, message, publish_at)
        except DBAPIError as exc:
            if outbox.name not in str(exc.orig):
                raise
            raise StoreError(
                f"the event can't be stored in {outbox.name}: {exc.orig}; 'eventbus store init' "
                "makes the tables, in the database of EVENTBUS_STORE_URL"
            ) from exc

    def _store(
        self, on: Session | Connection, message: Message, publish_at: datetime | None
    ) -> int:
        if isinstance(on, Session):
            on = on.connection(bind_arguments={"clause": outbox})
        # A savepoint that rolls back takes what it notified of with it.
        innermost = on.get_nested_transaction() or on.get_transaction()
        told = innermost is not None and innermost is self._told_in
        notify = self._notify and not told
        place = insertion(on.dialect, notify=notify).run(on, message, publish_at)
        self._told_in = innermost
        return place

    def defer(self, job: Deferred) -> None:
        """Do something after the root transaction has committed, and not if it rolls back.

        Raises:
            DeclarationError: It is a connection, which doesn't tell when it has committed.
        """
        if self._after is None:
            self._after = AfterCommit.of(self._session(), self._later, awaits=self._awaits())
        self._after.add(job)

    def tell(self, tell: Callable[[], None]) -> None:
        """Tell of an emit now: whoever waits for its commit has to know of it before."""
        tell()

    def _awaits(self) -> bool:
        return isinstance(self._asked, (AsyncSession, async_scoped_session))

    def _session(self) -> Session:
        match self._asked:
            case AsyncSession():
                return self._asked.sync_session
            case async_scoped_session():
                return self._asked().sync_session
            case scoped_session():
                return self._asked()
            case Session():
                return self._asked
            case _:
                raise DeclarationError(
                    "after_commit needs a session: a connection doesn't tell when it has "
                    "committed; pass a Session or AsyncSession to events.transaction()"
                )


class AfterCommit:
    """What waits for the root transactions of a session; there is one for each session."""

    def __init__(self, session: Session, later: Later, *, awaits: bool) -> None:
        self._session = session
        self._later = later
        self._awaits = awaits
        self._jobs: list[tuple[tuple[SessionTransaction, ...], Deferred]] = []
        event.listen(session, "after_commit", self._committed)
        event.listen(session, "after_soft_rollback", self._rolled_back)

    @classmethod
    def of(cls, session: Session, later: Later, *, awaits: bool) -> "AfterCommit":
        """Return the one of a session."""
        found = session.info.get(_AFTER)
        if not isinstance(found, cls):
            found = session.info[_AFTER] = cls(session, later, awaits=awaits)
        return found

    def add(self, job: Deferred) -> None:
        """Remember a job, and in which transaction and savepoints it was asked for."""
        self._jobs.append((self._path(), job))

    def _path(self) -> tuple[SessionTransaction, ...]:
        one = self._session.get_nested_transaction() or self._session.get_transaction()
        path: list[SessionTransaction] = []
        while one is not None:
            path.append(one)
            one = one.parent
        return tuple(path)

    def _committed(self, session: Session) -> None:
        if session.get_nested_transaction() is not None:  # a savepoint was released
            return
        jobs = [job for _, job in self._jobs]
        self._jobs = []
        if not jobs:
            return
        if self._awaits:
            # In the greenlet of `await session.commit()`, which returns once they are done.
            await_only(_do(jobs))
        else:
            self._later(jobs)

    def _rolled_back(self, _session: Session, previous: SessionTransaction) -> None:
        root = previous.parent is None
        self._jobs = [one for one in self._jobs if not root and previous not in one[0]]


async def _do(jobs: Sequence[Deferred]) -> None:
    with outside_transactions():  # this one is over
        for job in jobs:
            await job()
