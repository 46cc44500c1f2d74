"""`KeptStates`: the last state event of each key, kept beside the stream that listeners read.

A state event is stored twice: in the stream of events, and, once that is confirmed, in place of
the state that was kept. The sequence in the first one decides which is the last, so that both
agree whoever writes at the same time.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from eventbus import headers as h
from eventbus.drivers.base import Receipt
from eventbus.drivers.jetstream.admin import Admin
from eventbus.drivers.jetstream.publisher import Publisher
from eventbus.envelope import Message
from eventbus.errors import DriverError, EmitUnknown, SequenceConflictError
from eventbus.subject import Subjects

__all__ = ("KeptStates",)

SEQUENCE = "Eventbus-State-Seq"
"""On a kept state: its sequence in the stream of events."""
TRIES = 500
"""Each time another writer of the key was faster, and is done; so many at once are unlikely."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is kept of a key."""

    revision: int = 0
    sequence: int = 0
    id: str = ""


class KeptStates:
    """The states of one namespace.

    Everything that reads raises `DriverError` where the server can't say now.
    """

    def __init__(
        self, admin: Admin, publisher: Publisher, subjects: Subjects, max_age: float
    ) -> None:
        self._admin = admin
        self._publisher = publisher
        self._subjects = subjects
        self._lifetime = f"{round(max_age)}s" if max_age >= 1 else "never"

    async def keep(self, message: Message, receipt: Receipt) -> None:
        """Keep a state event that is stored, unless a later one of its key is kept.

        Raises:
            EmitUnknown: It isn't known to be kept; emitting it again keeps it.
        """
        try:
            await self._keep(message, receipt)
        except DriverError as exc:
            name = message.headers.get(h.TYPE, "?")
            raise EmitUnknown(name=name, id=receipt.id, after=0.0, tries=1) from exc

    async def last(self, name: str, key: str) -> Message | None:
        """Return the state event that is kept of a key; None without one."""
        stored = await self._admin.last(
            self._subjects.state_stream, self._subjects.state(name, key)
        )
        return None if stored is None else self._event(stored.message, name)

    async def all(self, name: str) -> AsyncIterator[Message]:
        """Yield the kept state events of a name, the one that has been kept longest first."""
        stream, subject = self._subjects.state_stream, self._subjects.states(name)
        async for stored in self._admin.messages(stream, subject):
            yield self._event(stored.message, name)

    def _event(self, message: Message, name: str) -> Message:
        """Return a kept message as it was in the stream of events."""
        return replace(message, subject=self._subjects.event(name))

    async def _keep(self, message: Message, receipt: Receipt) -> None:
        name = message.headers[h.TYPE]
        subject = self._subjects.state(name, h.ordering_key(message.headers))
        for _ in range(TRIES):
            kept = await self._kept(subject)
            if kept.sequence >= receipt.sequence and not await self._is_outdated(kept, receipt):
                return
            headers = {
                **message.headers,
                SEQUENCE: str(receipt.sequence),
                "Nats-Expected-Last-Subject-Sequence": str(kept.revision),
            }
            if h.DELETED in headers:
                headers["Nats-TTL"] = self._lifetime
            try:
                await self._publisher.publish(replace(message, subject=subject, headers=headers))
            except SequenceConflictError:
                continue
            return
        raise DriverError(f"the state on '{subject}' changes too fast; try again")

    async def _kept(self, subject: str) -> _Kept:
        stored = await self._admin.last(self._subjects.state_stream, subject)
        if stored is None:
            return _Kept()
        headers = h.lowered(stored.message.headers)
        sequence = headers.get(SEQUENCE.lower(), "")
        place = int(sequence) if sequence.isascii() and sequence.isdecimal() else 0
        return _Kept(stored.sequence, place, headers.get(h.ID, ""))

    async def _is_outdated(self, kept: _Kept, receipt: Receipt) -> bool:
        """Tell whether it counts sequences of a stream of events that is gone.

        Then the new stream holds something else there, or nothing.
        """
        if kept.id == h.quoted(receipt.id):
            return False
        there = await self._admin.message(receipt.stream, kept.sequence)
        return there is None or h.lowered(there.headers).get(h.ID, "") != kept.id
