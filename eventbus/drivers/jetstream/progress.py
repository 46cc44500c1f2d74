"""`Progress`: how far a durable is certainly done, so that it can be recreated without a gap.

The server's ack floor is certain for all processes, but only as new as the last look at it. What
this process settled since is kept by sequence, and handled no second time after a recreation.
"""

from collections.abc import Callable

from eventbus.drivers.jetstream.api import Api, Table, number, table
from eventbus.drivers.jetstream.message import Place

__all__ = ("Progress",)

LOOK_UP = 2.0


class Progress:
    """The progress of one durable."""

    def __init__(self, stream: str, durable: str) -> None:
        self._stream = stream
        self._durable = durable
        self._floor: int | None = None
        self._settled: dict[int, int] = {}
        self._again: dict[int, int] = {}

    @property
    def known(self) -> bool:
        """Whether the server has told the floor."""
        return self._floor is not None

    @property
    def moved(self) -> bool:
        """Whether another `look` would tell something new."""
        return self._floor is None or bool(self._settled)

    @property
    def after(self) -> int:
        """The last stream sequence of which nothing at or below has to be delivered again."""
        return self._floor or 0

    async def look(self, api: Api, narrowed: Callable[[Table], bool]) -> Table:
        """Learn the floor from the server; return all that it tells of the durable.

        Args:
            api: Whom to ask.
            narrowed: Tells of a durable's info whether somebody has taken filters away; what it
                skips for that isn't done.

        Raises:
            ApiError, DriverError, TimeoutError: It can't be asked now.
        """
        # This order: what is stored between the two questions must not count as done.
        stream = await api.call(f"STREAM.INFO.{self._stream}", timeout=LOOK_UP)
        last = number(table(stream.get("state")).get("last_seq"))
        info = await api.call(f"CONSUMER.INFO.{self._stream}.{self._durable}", timeout=LOOK_UP)
        if narrowed(info):
            return info
        if number(info.get("num_ack_pending")):
            floor = number(table(info.get("ack_floor")).get("stream_seq"))
        else:
            # Never the stream's last sequence: a pending count of 0 may be older (ADR 0006).
            floor = number(table(info.get("delivered")).get("stream_seq"))
        known = self._floor or 0
        self._floor = max(floor, known) if known <= last else floor  # else: a stream made anew
        self._settled = {
            sequence: stored for sequence, stored in self._settled.items() if sequence > floor
        }
        return info

    def settled(self, place: Place) -> None:
        """Take note that a message is acknowledged or terminated."""
        self._settled[place.sequence] = place.stored_ns

    def recreated(self) -> None:
        """Take note that the durable begins again after `after`."""
        self._again = {**self._again, **self._settled}

    def is_done(self, place: Place) -> bool:
        """Tell, once, whether a message that a recreation brought back was settled before.

        The time it was stored tells it from another one, of a stream that was made anew.
        """
        return bool(self._again) and self._again.pop(place.sequence, None) == place.stored_ns
