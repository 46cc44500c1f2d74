"""`Relay`: takes the events of an outbox to the stream, as soon as they are committed."""

import asyncio
from contextlib import suppress

from eventbus.errors import StoreError
from eventbus.relay.batch import Batch, Relaying
from eventbus.stores.base import OutboxStore
from eventbus.telemetry.outbox import OutboxMeasured, RelayFailed

__all__ = ("Relay",)

BATCH = 500
"""Rows of one claim; what is published and not yet removed when a relay dies comes again."""
POLL = 1.0
"""Seconds after which it looks without having been told of a commit."""
LEAST = 0.1
MOST = 5.0
"""Seconds between tries while the server or the database takes nothing; they double."""
MEASURE_EVERY = 5.0


class Relay:
    """Works one outbox, alone or beside others.

    At least once, under the event's own id, so that within the duplicate window it is stored
    exactly once. The events of one key go in the order in which they were emitted. What can't go
    is set aside with its reason.
    """

    def __init__(self, store: OutboxStore, relaying: Relaying) -> None:
        self._store = store
        self._relaying = relaying
        self._observe = relaying.observe
        self._clock = relaying.clock
        self._changed = asyncio.Event()
        self._failures = 0
        self._blocked: dict[str | int, float] = {}

    async def run(self) -> None:
        """Relay until cancelled; faults of server and database are told, and waited out.

        Cancelled, it ends after the publishes that are under way.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            group.create_task(self._measure())
            while True:
                if not await self._turn():
                    await self._rest()

    async def drain(self) -> int:
        """Relay what waits now, and return how many events went.

        Raises:
            StoreError: The database can't be asked.
            DriverError: The server takes nothing now.
        """
        gone = 0
        while True:
            batch = await self._once()
            if batch is None:
                return gone
            gone += batch.published
            if batch.stopped is not None:
                raise batch.stopped
            if not batch.published and batch.refused:
                return gone

    async def _turn(self) -> bool:
        """Relay one claim, and tell whether to go on at once."""
        self._changed.clear()
        try:
            batch = await self._once()
        except StoreError as exc:
            self._observe(RelayFailed(exc))
            self._failures += 1
            return False
        if batch is not None and batch.stopped is not None:
            self._failures += 1
            return False
        self._failures = 0
        return batch is not None and batch.published > 0

    async def _once(self) -> Batch | None:
        """Relay one claim; None where there was nothing to do."""
        now = self._clock.monotonic()
        self._blocked = {order: until for order, until in self._blocked.items() if until > now}
        async with self._store.claim(BATCH, tuple(self._blocked)) as claim:
            if not claim.rows:
                return None
            batch = Batch(claim, self._relaying)
            await _to_its_end(batch)
        for order, tries in batch.refused.items():
            self._blocked[order] = now + _pause(tries)
        return batch

    async def _rest(self) -> None:
        if self._failures:
            await self._clock.sleep(_pause(self._failures))
            return
        now = self._clock.monotonic()
        soonest = min((until - now for until in self._blocked.values()), default=POLL)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(POLL, soonest))):
                await self._changed.wait()

    async def _watch(self) -> None:
        while True:
            try:
                await self._store.watch(self._changed.set)
            except StoreError as exc:
                self._observe(RelayFailed(exc))
            await self._clock.sleep(POLL)

    async def _measure(self) -> None:
        while True:
            try:
                state = await self._store.state()
            except StoreError:
                pass  # the relay itself tells of it
            else:
                self._observe(OutboxMeasured(state.pending, state.oldest, state.quarantined))
            await self._clock.sleep(MEASURE_EVERY)


async def _to_its_end(batch: Batch) -> None:
    """Run a batch; cancelled, let what is under way finish, so that its outcome is known."""
    async with asyncio.TaskGroup() as group:
        running = group.create_task(batch.run())
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            batch.end()
            await running  # a second cancellation ends this too
            raise


def _pause(failures: int) -> float:
    return min(MOST, LEAST * 2.0 ** min(failures - 1, 10))
