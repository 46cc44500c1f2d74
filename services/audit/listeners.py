"""Listens to every event, and keeps each one once in a SQLite database.

Settings: ``EVENTBUS_AUDIT_DATABASE``, the database's file (``.eventbus/audit.sqlite3``).
"""

from contextlib import AsyncExitStack
from pathlib import Path

from typing_extensions import override

from eventbus import Context, Event, EventService, Retry, Settings
from services.audit.trail import Trail

__all__ = ("AuditService", "AuditSettings")


class AuditSettings(Settings):
    """Settings of the audit service, beside those of every service."""

    audit_database: Path = Path(".eventbus/audit.sqlite3")
    """The database's file; it and its folder are made where they are missing."""


class AuditService(EventService):
    """Keeps a row per event; emits nothing.

    A new durable starts with all events that are stored, so that the trail has no beginning but
    the stream's.
    """

    def __init__(self, settings: AuditSettings | None = None) -> None:
        super().__init__("audit", settings=settings)
        self._given = settings
        self._trail = Trail()
        # A full disk is mended by somebody, not by giving up.
        self.subscribe(">", self.record, start="all", retry=Retry(attempts=20, cap=300))

    @override
    async def start(self) -> None:
        settings = self._given or AuditSettings.load()
        await self._trail.open(settings.audit_database)
        async with AsyncExitStack() as failed:
            failed.push_async_callback(self._trail.close)
            await super().start()
            failed.pop_all()

    @override
    async def stop(self, grace: float | None = None) -> None:
        try:
            await super().stop(grace)
        finally:
            await self._trail.close()

    async def record(self, event: Event, context: Context) -> None:
        """Keep an event; a redelivery of one that is kept changes nothing."""
        await self._trail.add(event, context)
