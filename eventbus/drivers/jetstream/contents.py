"""`Contents`: what one stream holds, asked about and removed by subject."""

from collections.abc import Mapping

from eventbus.drivers.jetstream import api as codes
from eventbus.drivers.jetstream.api import Api, ApiError, Table, number, table, translated

__all__ = ("Contents",)

PATIENCE = 30.0
"""A purge of a large stream may take seconds."""
_SEQUENCE_NOT_FOUND = 10043


class Contents:
    """One stream.

    Everything here raises `DriverError` where the server can't say or do it now, and
    `TopologyError` where it refuses.
    """

    def __init__(self, api: Api, stream: str) -> None:
        self._api = api
        self.stream = stream

    async def info(self) -> Table:
        """Return its configuration and state."""
        return await self._ask("INFO")

    async def subjects(self, kind: str) -> tuple[str, ...]:
        """Return the subjects that match ``kind`` and hold something."""
        info = await self._ask("INFO", {"subjects_filter": kind})
        return tuple(table(table(info.get("state")).get("subjects")))

    async def message(self, **which: object) -> Table | None:
        """Return a message as the API tells it; None where there is none."""
        with translated(f"stream {self.stream}"):
            try:
                answer = await self._api.call(f"STREAM.MSG.GET.{self.stream}", which)
            except ApiError as exc:
                if exc.err_code == codes.MESSAGE_NOT_FOUND:
                    return None
                raise
        return table(answer.get("message"))

    async def purge(self, subject: str, before: int) -> int:
        """Remove what is below a sequence on a subject, never without one; return how many."""
        assert subject, "a purge without a subject takes everything"
        answer = await self._ask("PURGE", {"filter": subject, "seq": before}, PATIENCE)
        return number(answer.get("purged"))

    async def delete(self, sequence: int) -> None:
        """Remove one message, if it is still there."""
        with translated(f"message {sequence} of stream {self.stream}"):
            try:
                ask = {"seq": sequence, "no_erase": True}
                await self._api.call(f"STREAM.MSG.DELETE.{self.stream}", ask)
            except ApiError as exc:
                if exc.err_code != _SEQUENCE_NOT_FOUND:
                    raise

    async def _ask(
        self, verb: str, body: Mapping[str, object] | None = None, patience: float = 5.0
    ) -> Table:
        with translated(f"stream {self.stream}"):
            return await self._api.call(f"STREAM.{verb}.{self.stream}", body, timeout=patience)
