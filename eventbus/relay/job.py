"""A relay as a job that a service runs, with a connection to the database of its own."""

from collections.abc import Awaitable, Callable

from eventbus.errors import StoreError
from eventbus.relay.batch import Relaying
from eventbus.relay.relay import Relay
from eventbus.stores.choice import engine_of
from eventbus.telemetry.outbox import RelayFailed

__all__ = ("EVERYONE", "RelayJob")

EVERYONE = "*"
"""Stands for the events of every service in the outbox."""
AGAIN_AFTER = 2.0


class RelayJob:
    """Relays what one service emits into an outbox, or what all do.

    Args:
        url: The database.
        source: The service whose events go, or `EVERYONE`.
    """

    def __init__(self, url: str, source: str, relaying: Relaying) -> None:
        self._url = url
        self._source = "" if source == EVERYONE else source
        self._relaying = relaying
        self._observe = relaying.observe
        self._clock = relaying.clock

    async def run(self) -> None:
        """Relay until cancelled; a database that is away is waited for.

        Raises:
            SettingsError: The stores don't work with that database, or a package is missing.
        """
        engine = engine_of(self._url)
        from eventbus.stores.sql.engine import dispose
        from eventbus.stores.sql.outbox import SqlOutbox

        outbox = SqlOutbox(engine, self._clock, source=self._source)
        try:
            while not await self._is_prepared(outbox.prepare):
                await self._clock.sleep(AGAIN_AFTER)
            await Relay(outbox, self._relaying).run()
        finally:
            outbox.close()
            await dispose(engine)

    async def _is_prepared(self, prepare: Callable[[], Awaitable[None]]) -> bool:
        try:
            await prepare()
        except StoreError as exc:
            self._observe(RelayFailed(exc))
            return False
        return True
