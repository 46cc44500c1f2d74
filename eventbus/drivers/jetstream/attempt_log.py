"""`KeyValueAttempts`: the failed attempts of deliveries, in a key-value bucket of the server."""

import base64
import json

from eventbus.attempts import History
from eventbus.drivers.jetstream.api import MESSAGE_NOT_FOUND, Api, ApiError, number, table, text
from eventbus.drivers.jetstream.publisher import Publisher
from eventbus.envelope import Message
from eventbus.errors import DriverError
from eventbus.headers import parse_time, render_time

__all__ = ("KeyValueAttempts",)


class KeyValueAttempts:
    """An `AttemptLog` on the bucket ``<NS>_ATTEMPTS``; one key for each place."""

    def __init__(self, api: Api, publisher: Publisher, bucket: str) -> None:
        self._api = api
        self._publisher = publisher
        self._bucket = bucket

    async def read(self, place: str) -> History:
        """Return what is recorded; an empty history where nothing is.

        Raises:
            DriverError: It can't be read now.
        """
        verb = f"STREAM.MSG.GET.KV_{self._bucket}"
        try:
            answer = await self._api.call(verb, {"last_by_subj": self._subject(place)})
        except ApiError as exc:
            if exc.err_code == MESSAGE_NOT_FOUND:
                return History()
            raise DriverError(f"the attempts of {place} can't be read: {exc.description}") from exc
        except TimeoutError as exc:
            raise DriverError(f"the attempts of {place} can't be read: no answer") from exc
        return _history(base64.b64decode(text(table(answer.get("message")).get("data"))))

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
        await self._publisher.publish(Message(self._subject(place), {}, body), headroom=0)

    async def forget(self, place: str) -> None:
        """Drop the record; best effort, the bucket's age limit is behind it."""
        try:
            await self._api.call(
                f"STREAM.PURGE.KV_{self._bucket}", {"filter": self._subject(place)}
            )
        except (ApiError, DriverError, TimeoutError):
            return

    def _subject(self, place: str) -> str:
        return f"$KV.{self._bucket}.{place}"


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
