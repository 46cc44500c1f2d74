"""`Inboxes`: what lets the listeners of a service have each effect once."""

import logging
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from eventbus.clock import Clock
from eventbus.errors import DeclarationError, StoreError
from eventbus.middleware.base import CallNext, Context
from eventbus.middleware.limit import Layer
from eventbus.middleware.marks import Marks
from eventbus.stores.choice import engine_of
from eventbus.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

    from eventbus.settings import Settings

__all__ = ("Inboxes",)

PRUNE_EVERY = 3600.0
FIRST_AFTER = 60.0
"""Not at the start, when there is other work."""
AGAIN_AFTER = 30.0
_log = logging.getLogger(__name__)


class Inboxes:
    """The inboxes of one service; entered with it, its database is closed at the end.

    Args:
        settings: Where the database is, and how long events, and so marks, are kept.
        transaction: Lets the emits of a block take part in a session's transaction.
        clock: Stamps marks, and says when to prune them.
        required: Whether a listener needs the database, so that it has to have its tables.
    """

    def __init__(
        self,
        settings: "Settings",
        transaction: "Callable[[AsyncSession], AbstractAsyncContextManager[None]]",
        clock: Clock,
        *,
        required: bool = False,
    ) -> None:
        self._required = required
        self._settings = settings
        self._transaction = transaction
        self._clock = clock
        self._engine: AsyncEngine | None = None

    def __call__(self, one: Subscription) -> Layer:
        """Return the inbox of a listener.

        Raises:
            SettingsError: The database isn't one that the stores work with.
        """
        if one.inbox == "kv":
            return Marks(self._settings.max_age, one.place, again=one.durable if one.again else "")
        from eventbus.stores.sql.inbox import SqlInbox

        inbox = SqlInbox(
            self._opened(),
            one.place,
            take_part=self._transaction,
            clock=self._clock,
            again=one.durable if one.again else "",
        )

        async def handle_once(context: Context, call_next: CallNext) -> None:
            async def run(session: "AsyncSession") -> None:
                await call_next(replace(context, database=session))

            await inbox.once(context.id, run)

        return handle_once

    async def _check(self) -> None:
        from eventbus.stores.sql.inbox import check_inbox

        try:
            await check_inbox(self._opened())
        except StoreError as exc:
            raise DeclarationError(f"a listener has inbox=True, but {exc}") from exc

    async def __aenter__(self) -> Self:
        """Open the database where a listener needs it.

        Raises:
            DeclarationError: It has no table of marks; the message says what makes it.
        """
        if self._required:
            try:
                await self._check()
            except BaseException:
                await self.__aexit__()
                raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the database."""
        if self._engine is not None:
            from eventbus.stores.sql.engine import dispose

            await dispose(self._engine)
            self._engine = None

    async def prune(self) -> None:
        """Remove marks of events that the stream has no more, each hour, until cancelled."""
        from eventbus.stores.sql.inbox import prune_inbox

        pause = FIRST_AFTER
        while True:
            await self._clock.sleep(pause)
            before = self._clock.now() - timedelta(seconds=self._settings.max_age)
            pause = PRUNE_EVERY
            try:
                await prune_inbox(self._opened(), before)
            except StoreError as exc:
                _log.warning("the inbox isn't pruned: %s", exc)
                pause = AGAIN_AFTER

    def _opened(self) -> "AsyncEngine":
        if self._engine is None:
            self._engine = engine_of(self._settings.store_url)
        return self._engine
