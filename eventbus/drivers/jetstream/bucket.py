"""`Bucket`: a key-value bucket of the server, asked through its leader."""

import base64
from dataclasses import dataclass

from eventbus.drivers.jetstream.api import MESSAGE_NOT_FOUND, Api, ApiError, number, table, text
from eventbus.errors import DriverError

__all__ = ("Bucket", "Entry")


@dataclass(frozen=True, slots=True)
class Entry:
    """What is stored under a key."""

    body: bytes
    revision: int


class Bucket:
    """The records of one bucket. ``what`` names one in errors."""

    def __init__(self, api: Api, name: str) -> None:
        self._api = api
        self.stream = f"KV_{name}"
        """The stream that it is."""
        self._prefix = f"$KV.{name}."

    def subject(self, key: str) -> str:
        """Return where a key's records are published."""
        return f"{self._prefix}{key}"

    async def get(
        self,
        key: str,
        what: str,
        *,
        timeout: float = 5.0,  # noqa: ASYNC109 - handed on, the connection keeps the deadline
    ) -> Entry | None:
        """Return the last record of a key; None where there is none.

        Raises:
            DriverError: It can't be read now.
        """
        # Not a direct get: a replica may not know yet what was written a moment ago.
        verb, ask = f"STREAM.MSG.GET.{self.stream}", {"last_by_subj": self.subject(key)}
        try:
            answer = await self._api.call(verb, ask, timeout=timeout)
        except ApiError as exc:
            if exc.err_code == MESSAGE_NOT_FOUND:
                return None
            raise DriverError(f"{what} can't be read: {exc.description}") from exc
        except TimeoutError as exc:
            raise DriverError(f"{what} can't be read: no answer") from exc
        message = table(answer.get("message"))
        return Entry(base64.b64decode(text(message.get("data"))), number(message.get("seq")))

    async def purge(self, key: str, what: str) -> None:
        """Remove the records of a key.

        Raises:
            DriverError: They may still be there.
        """
        try:
            await self._api.call(f"STREAM.PURGE.{self.stream}", {"filter": self.subject(key)})
        except ApiError as exc:
            raise DriverError(f"{what} can't be removed: {exc.description}") from exc
        except TimeoutError as exc:
            raise DriverError(f"{what} may not be removed: no answer") from exc
