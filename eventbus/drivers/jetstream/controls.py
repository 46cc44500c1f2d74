"""`Controls`: what an operator does to durables."""

from datetime import datetime

from eventbus.drivers.jetstream import api as codes
from eventbus.drivers.jetstream.api import Api, ApiError, translated
from eventbus.errors import TopologyError
from eventbus.headers import render_time

__all__ = ("Controls",)


class Controls:
    """The durables of the stream of events, as an operator works them.

    Everything here raises `DriverError` where the server can't do it now, and `TopologyError`
    where it refuses, or where there is no such durable.
    """

    def __init__(self, api: Api, stream: str) -> None:
        self._api = api
        self._stream = stream

    async def pause(self, durable: str, until: datetime) -> None:
        """Have the server hand out nothing to any process until a time; what is in hand stays."""
        await self._pause(durable, {"pause_until": render_time(until)})

    async def resume(self, durable: str) -> None:
        """End a pause now; one that isn't paused stays as it is."""
        await self._pause(durable, {})

    async def _pause(self, durable: str, ask: dict[str, str]) -> None:
        thing = f"durable {durable}"
        with translated(thing):
            try:
                await self._api.call(f"CONSUMER.PAUSE.{self._stream}.{durable}", ask)
            except ApiError as exc:
                if exc.err_code != codes.CONSUMER_NOT_FOUND:
                    raise
                raise TopologyError(
                    thing=thing,
                    problem=f"isn't on stream {self._stream}",
                    remedy="see 'eventbus listener list' for those that are",
                ) from exc
