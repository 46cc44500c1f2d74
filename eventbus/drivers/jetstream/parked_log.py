"""`KeyValueParked`: the keys that ordered listeners have set aside, in a bucket of the server."""

import base64
import json

from eventbus.drivers.jetstream.admin import Admin
from eventbus.drivers.jetstream.api import (
    MESSAGE_NOT_FOUND,
    Api,
    ApiError,
    number,
    table,
    text,
    translated,
)
from eventbus.drivers.jetstream.publisher import Publisher
from eventbus.envelope import Message
from eventbus.parked import ParkedKey
from eventbus.subject import encode_key

__all__ = ("KeyValueParked",)


class KeyValueParked:
    """A `ParkedLog` on the bucket ``<NS>_ATTEMPTS``; one key for each, without its age limit."""

    def __init__(self, api: Api, admin: Admin, publisher: Publisher, bucket: str) -> None:
        self._api = api
        self._admin = admin
        self._publisher = publisher
        self._bucket = bucket

    async def keys(self, durable: str) -> frozenset[str]:
        """Return the keys that a durable's listener has parked.

        Raises:
            DriverError: They can't be read now.
        """
        stored = self._admin.messages(f"KV_{self._bucket}", f"{self._prefix(durable)}.>")
        records = [_read(one.message.body) async for one in stored]
        return frozenset(one.key for one in records if one is not None)

    async def read(self, durable: str, key: str) -> ParkedKey | None:
        """Return what is recorded; None for a key that isn't parked.

        Raises:
            DriverError: It can't be read now.
        """
        # Not a direct get: a replica may not know yet what was written a moment ago.
        verb, ask = f"STREAM.MSG.GET.KV_{self._bucket}", {"last_by_subj": self._at(durable, key)}
        with translated(f"the parked key '{key}' of {durable}"):
            try:
                answer = await self._api.call(verb, ask)
            except ApiError as exc:
                if exc.err_code == MESSAGE_NOT_FOUND:
                    return None
                raise
        return _read(base64.b64decode(text(table(answer.get("message")).get("data"))))

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
        message = Message(self._at(durable, parked.key), headers, body)
        await self._publisher.publish(message, headroom=0)

    async def free(self, durable: str, key: str) -> None:
        """Drop the record: what comes of that key is handled again.

        Raises:
            DriverError: It may still be there.
        """
        with translated(f"the parked key '{key}' of {durable}"):
            verb = f"STREAM.PURGE.KV_{self._bucket}"
            await self._api.call(verb, {"filter": self._at(durable, key)})

    def _prefix(self, durable: str) -> str:
        return f"$KV.{self._bucket}.{durable}.parked"

    def _at(self, durable: str, key: str) -> str:
        return f"{self._prefix(durable)}.{encode_key(key)}"


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
