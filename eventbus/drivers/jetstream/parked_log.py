"""`KeyValueParked`: the keys that ordered listeners have set aside, in a bucket of the server."""

import json

from eventbus.drivers.jetstream.admin import Admin
from eventbus.drivers.jetstream.api import number, table, text
from eventbus.drivers.jetstream.bucket import Bucket
from eventbus.drivers.jetstream.publisher import Publisher
from eventbus.envelope import Message
from eventbus.parked import ParkedKey
from eventbus.subject import encode_key

__all__ = ("KeyValueParked",)


class KeyValueParked:
    """A `ParkedLog` on the bucket ``<NS>_ATTEMPTS``; one key for each, without its age limit."""

    def __init__(self, bucket: Bucket, admin: Admin, publisher: Publisher) -> None:
        self._admin = admin
        self._publisher = publisher
        self._bucket = bucket

    async def keys(self, durable: str) -> frozenset[str]:
        """Return the keys that a durable's listener has parked.

        Raises:
            DriverError: They can't be read now.
        """
        every = self._bucket.subject(f"{durable}.parked.>")
        stored = self._admin.messages(self._bucket.stream, every)
        records = [_read(one.message.body) async for one in stored]
        return frozenset(one.key for one in records if one is not None)

    async def read(self, durable: str, key: str) -> ParkedKey | None:
        """Return what is recorded; None for a key that isn't parked.

        Raises:
            DriverError: It can't be read now.
        """
        entry = await self._bucket.get(_at(durable, key), _named(durable, key))
        return None if entry is None else _read(entry.body)

    async def write(self, durable: str, parked: ParkedKey) -> None:
        """Record it, confirmed, in place of what was recorded of that key.

        Raises:
            DriverError: It may not be recorded.
        """
        record = {
            "key": parked.key,
            "first": parked.first,
            "last": parked.last,
            "redriven": parked.redriven,
        }
        headers = {"Nats-TTL": "never"}  # else it would be freed when the bucket's age is over
        body = json.dumps(record).encode()
        message = Message(self._bucket.subject(_at(durable, parked.key)), headers, body)
        await self._publisher.publish(message, headroom=0)

    async def free(self, durable: str, key: str) -> None:
        """Drop the record: what comes of that key is handled again.

        Raises:
            DriverError: It may still be there.
        """
        await self._bucket.purge(_at(durable, key), _named(durable, key))


def _at(durable: str, key: str) -> str:
    return f"{durable}.parked.{encode_key(key)}"


def _named(durable: str, key: str) -> str:
    return f"the parked key '{key}' of {durable}"


def _read(body: bytes) -> ParkedKey | None:
    """Return what a record says, None where somebody else has put something there."""
    try:
        record = table(json.loads(body))
    except ValueError:
        return None
    if not record:
        return None
    return ParkedKey(
        key=text(record.get("key")),
        first=number(record.get("first")),
        last=number(record.get("last")),
        redriven=number(record.get("redriven")),
    )
