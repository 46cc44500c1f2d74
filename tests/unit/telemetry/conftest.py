"""An event, and what surrounds it, for the tests of telemetry."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from eventbus.drivers.base import Receipt
from eventbus.envelope import Envelope
from eventbus.event import Event
from eventbus.middleware.base import Context

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


class UserCreated(Event, name="user.created"):
    user_id: str


async def _no_emit(*args: object, **options: object) -> Receipt:
    raise AssertionError("nothing is emitted here")


@pytest.fixture
def make_envelope() -> Callable[..., Envelope]:
    def make(trace: dict[str, str] | None = None) -> Envelope:
        event = UserCreated(user_id="u-1")
        return Envelope(
            event=event,
            body=event.event_body(),
            id="id-1",
            name="user.created",
            version=1,
            time=NOW,
            source="user",
            key=None,
            correlation_id="c-1",
            causation_id=None,
            trace=trace or {},
        )

    return make


@pytest.fixture
def make_context() -> Callable[..., Context]:
    def make(
        trace: dict[str, str] | None = None, *, id: str = "id-1", attempt: int = 2
    ) -> Context:
        return Context(
            event=UserCreated(user_id="u-1"),
            id=id,
            name="user.created",
            version=1,
            key=None,
            time=NOW,
            source="user",
            correlation_id="c-1",
            causation_id=None,
            attempt=attempt,
            listener="send_welcome",
            service="notification",
            headers={},
            tags=(),
            trace=trace or {},
            subject="events.user.created",
            stream="EVENTS",
            sequence=7,
            emit=_no_emit,
        )

    return make
