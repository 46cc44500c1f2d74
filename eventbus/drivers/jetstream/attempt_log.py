"""`KeyValueAttempts`: the failed attempts of deliveries, in a key-value bucket of the server."""

import json
from contextlib import suppress

from eventbus.attempts import History
from eventbus.drivers.jetstream.api import number, table, text
from eventbus.drivers.jetstream.bucket import Bucket
from eventbus.drivers.jetstream.publisher import Publisher
from eventbus.envelope import Message
from eventbus.errors import DriverError
from eventbus.headers import parse_time, render_time

__all__ = ("KeyValueAttempts",)


class KeyValueAttempts:
    """An `AttemptLog` on the bucket ``<NS>_ATTEMPTS``; one key for each place."""

    def __init__(self, bucket: Bucket, publisher: Publisher) -> None:
        self._publisher = publisher
        self._bucket = bucket

    async def read(self, place: str) -> History:
        """Return what is recorded; an empty history where nothing is.

        Raises:
            DriverError: It can't be read now.
        """
        entry = await self._bucket.get(place, f"the record of {place}")
        return History() if entry is None else _history(entry.body)

    async def write(self, place: str, history: History) -> None:
        """Record it, confirmed.

        Raises:
            DriverError: It may not be recorded.
        """
        record = {
            "failed": history.failed,
            "settled": history.settled,
            "started": history.started,
            "began": render_time(history.began) if history.began else "",
            "raised": history.raised,
        }
        body = json.dumps(record, separators=(",", ":")).encode()
        await self._publisher.publish(Message(self._bucket.subject(place), {}, body), headroom=0)

    async def forget(self, place: str) -> None:
        """Drop the record; best effort, the bucket's age limit is behind it."""
        with suppress(DriverError):
            await self._bucket.purge(place, f"the record of {place}")


def _history(body: bytes) -> History:
    try:
        record = table(json.loads(body))
    except ValueError:
        return History()
    return History(
        failed=number(record.get("failed")),
        settled=number(record.get("settled")),
        started=number(record.get("started")),
        began=parse_time(text(record.get("began"))),
        raised=number(record.get("raised")),
    )
