"""`Ledger`: the table of charges, in the database of the service's outbox."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from sqlalchemy import (
    Column,
    DateTime,
    Integer,
    MetaData,
    String,
    Table,
    case,
    func,
    insert,
    select,
)
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from eventbus.stores.sql.engine import create_tables, engine_of, translated
from schemas.payment import PaymentCompleted, PaymentFailed

__all__ = ("Ledger", "Total", "book", "total")

_metadata = MetaData()
_charges = Table(
    "charges",
    _metadata,
    Column("payment_id", String(128), primary_key=True),
    Column("email", String(320), nullable=False),
    Column("amount", Integer, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("order_id", String(128)),
    Column("refusal", String(80)),  # why no money was taken; null where it was
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)


@dataclass(frozen=True, slots=True)
class Total:
    """How many charges there are."""

    completed: int
    failed: int


class Ledger:
    """The charges; entered, its tables and those of the outbox are there.

    Args:
        url: Gives the database's URL.
    """

    def __init__(self, url: Callable[[], str]) -> None:
        self._url = url
        self._engine: AsyncEngine | None = None

    async def __aenter__(self) -> Self:
        """Open the database, and make what is missing of it.

        Raises:
            SettingsError, StoreError: It can't be opened.
        """
        self._engine = engine_of(self._url())
        try:
            await create_tables(self._engine)
            await create_tables(self._engine, _metadata)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the database."""
        if self._engine is not None:
            await self._engine.dispose()
        self._engine = None

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[AsyncSession]:
        """Give a session in a transaction, which is committed at the end of the block.

        Raises:
            StoreError: The database takes nothing now.
        """
        assert self._engine is not None, "the ledger isn't open"
        with translated("the ledger"):
            async with AsyncSession(self._engine) as session, session.begin():
                yield session


async def book(session: AsyncSession, outcome: PaymentCompleted | PaymentFailed) -> None:
    """Add a charge, whether or not money was taken."""
    refusal = outcome.reason if isinstance(outcome, PaymentFailed) else None
    row = {**outcome.model_dump(exclude={"reason"}), "refusal": refusal}
    await session.execute(insert(_charges), row)


async def total(session: AsyncSession) -> Total:
    """Count the charges."""
    completed = func.coalesce(func.sum(case((_charges.c.refusal.is_(None), 1), else_=0)), 0)
    row = (await session.execute(select(completed, func.count(_charges.c.payment_id)))).one()
    return Total(int(row[0]), int(row[1]) - int(row[0]))
