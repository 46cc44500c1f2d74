"""`KeyValueLimits`: what processes agree on to keep a limit, in a bucket of the server."""

import json
import math

from eventbus.drivers.jetstream.api import number, table, text
from eventbus.drivers.jetstream.bucket import Bucket
from eventbus.drivers.jetstream.connection import Connection
from eventbus.errors import DriverError, NotConnectedError
from eventbus.limits import LimitRecord

__all__ = ("KeyValueLimits",)

PATIENCE = 2.0
CHANGED = 10071
"""The key has another revision than the one that was expected."""


class KeyValueLimits:
    """A `LimitLog` on the bucket ``<NS>_ATTEMPTS``; each record has its own time to live."""

    def __init__(self, bucket: Bucket, connection: Connection) -> None:
        self._connection = connection
        self._bucket = bucket

    async def read(self, place: str) -> LimitRecord | None:
        """Return what is recorded; None where nothing is.

        Raises:
            DriverError: It can't be read now.
        """
        entry = await self._bucket.get(place, f"limit {place}", timeout=PATIENCE)
        return None if entry is None else LimitRecord(entry.body, entry.revision)

    async def write(self, place: str, body: bytes, *, over: int, keep: float) -> int | None:
        """Record it in place of a revision; None where somebody else has changed it since.

        It isn't tried again: whoever keeps a limit reads first what became of it.

        Raises:
            DriverError: It may or may not be recorded.
        """
        link = self._connection.link
        if link is None:
            raise NotConnectedError(self._connection.problem or "not connected to NATS")
        headers = {
            "Nats-Expected-Last-Subject-Sequence": str(over),
            "Nats-TTL": f"{max(1, math.ceil(keep))}s",
        }
        try:
            raw = await link.ask(self._bucket.subject(place), body, headers, within=PATIENCE)
            answer = table(json.loads(raw.data or b"{}"))
        except (TimeoutError, ValueError) as exc:
            raise DriverError(f"limit {place} may not be recorded: no answer") from exc
        error = table(answer.get("error"))
        if number(error.get("err_code")) == CHANGED:
            return None
        if error or not answer.get("seq"):
            problem = text(error.get("description")) or "no stream takes it"
            raise DriverError(f"limit {place} can't be recorded: {problem}")
        return number(answer.get("seq"))
