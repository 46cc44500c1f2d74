"""F15: what the server would end the connection for is refused before it is sent."""

import pytest

from eventbus import EventBusError, EventService
from tests.faults.harness.history import What
from tests.faults.harness.stage import Stage
from tests.faults.harness.step import StepTaken

pytestmark = [pytest.mark.faults, pytest.mark.nats]

MOST = 1024 * 1024
"""What the server takes as one message, headers included."""
PLAIN = {"thread": "big", "number": 1}


async def refusal(events: EventService, event: StepTaken | str, **options: object) -> Exception:
    """Return what an emit raises; its kind is looked at last."""
    data = (PLAIN,) if isinstance(event, str) else ()
    try:
        await events.emit(event, *data, **options)  # type: ignore[call-overload]
    except Exception as exc:  # noqa: BLE001 - a naive bus raises anything
        return exc
    raise AssertionError("what is too big was emitted")


async def test_f15_what_is_too_big_is_refused_before_it_is_sent_and_the_connection_stays(
    stage: Stage,
) -> None:
    mailer = stage.service(emit_timeout=10)
    stage.listen(mailer)
    payload = StepTaken(thread="big", number=2, filler="x" * (MOST + 1))
    with_headers = StepTaken(thread="big", number=3, filler="x" * (MOST - 300))
    async with mailer:
        refused = [
            await refusal(mailer, payload),
            await refusal(mailer, with_headers),
            await refusal(mailer, "step.taken", headers={"X-Long": "x" * MOST}),
            await refusal(mailer, "step." + "x" * 5000),
        ]

        await stage.calm(mailer)

    await stage.check()
    assert [isinstance(one, EventBusError) for one in refused] == [True] * 4
    assert stage.history.of(What.LOST) == []
