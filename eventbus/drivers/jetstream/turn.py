"""`Turn`: a duty that one process of the cluster has at a time, kept as a key that expires."""

import json
from uuid import uuid4

from eventbus.drivers.jetstream.api import number, table
from eventbus.drivers.jetstream.connection import Connection
from eventbus.errors import DriverError

__all__ = ("Turn",)

LASTS = 10
"""Seconds until somebody else may have it, where it isn't taken again; whole ones (the server's
smallest unit)."""
PATIENCE = 2.0


class Turn:
    """One contender for a duty.

    It saves work and guards nothing: after a pause, two processes may think that they have it.
    """

    def __init__(self, connection: Connection, subject: str) -> None:
        self._connection = connection
        self._subject = subject
        self._name = uuid4().hex
        self._revision = 0

    async def take(self) -> bool:
        """Take it, or keep it for another 10 s; False where somebody else has it, or to be safe.

        Raises:
            NotAuthorizedError: The permissions don't cover the key.
        """
        link = self._connection.link
        if link is None:
            return False
        headers = {
            "Nats-Expected-Last-Subject-Sequence": str(self._revision),
            "Nats-TTL": f"{LASTS}s",
        }
        try:
            raw = await link.ask(self._subject, self._name.encode(), headers, within=PATIENCE)
            answer = table(json.loads(raw.data or b"{}"))
        except (TimeoutError, ValueError):
            answer = {}
        except DriverError as exc:
            if not exc.retryable:
                raise
            answer = {}
        # Another revision: it ran out, or somebody else has it. The next try begins anew.
        self._revision = 0 if "error" in answer else number(answer.get("seq"))
        return self._revision > 0
