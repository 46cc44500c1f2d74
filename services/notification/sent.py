"""`Sent`: the table of sent mails, in the database of the service's inbox."""

from collections.abc import Callable
from typing import Self

from sqlalchemy import Column, DateTime, Integer, MetaData, String, Table, Text, func, insert
from sqlalchemy.ext.asyncio import AsyncSession

from eventbus.stores.sql.engine import create_tables, opened
from services.notification.mails import Mail

__all__ = ("Sent", "record")

_metadata = MetaData()
# Nothing here is unique but the number: that a mail has one row is the inbox's work.
_sent = Table(
    "sent_mails",
    _metadata,
    Column("number", Integer, primary_key=True),
    Column("event_id", String(128), nullable=False),
    Column("recipient", String(320), nullable=False),
    Column("template", String(40), nullable=False),
    Column("subject", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)


class Sent:
    """Entered, the table is there, and those of inbox and outbox.

    Args:
        url: Gives the database's URL.
    """

    def __init__(self, url: Callable[[], str]) -> None:
        self._url = url

    async def __aenter__(self) -> Self:
        """Make what is missing.

        Raises:
            SettingsError, StoreError: The database can't be opened.
        """
        async with opened(self._url()) as engine:
            await create_tables(engine)
            await create_tables(engine, _metadata)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Have nothing to close: listeners write through the inbox."""


async def record(session: AsyncSession, mail: Mail, event_id: str, message_id: str) -> None:
    """Add a row for a mail that is sent."""
    row = {
        "event_id": event_id,
        "recipient": mail.to,
        "template": mail.template,
        "subject": mail.subject,
        "message_id": message_id,
    }
    await session.execute(insert(_sent), row)
