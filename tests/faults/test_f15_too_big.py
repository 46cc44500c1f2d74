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
    """Return what an emit raises."""
    data = (PLAIN,) if isinstance(event, str) else ()
    with pytest.raises(Exception) as raised:  # noqa: PT011 - the kind is looked at last
        await events.emit(event, *data, **options)  # type: ignore[call-overload]
    return raised.value


@pytest.mark.parametrize("excess", [1, -300], ids=["payload", "payload-with-headers"])
async def test_f15_a_payload_that_is_too_big_is_refused_and_the_connection_stays(
    stage: Stage, excess: int
) -> None:
    mailer = stage.service(emit_timeout=2)
    stage.listen(mailer)
    big = StepTaken(thread="big", number=2, filler="x" * (MOST + excess))
    async with mailer:
        refused = await refusal(mailer, big)

        await stage.calm(mailer)

    await stage.check()
    assert isinstance(refused, EventBusError)
    assert stage.history.of(What.LOST) == []


async def test_f15_headers_and_names_without_end_are_refused_and_the_connection_stays(
    stage: Stage,
) -> None:
    mailer = stage.service(emit_timeout=2)
    stage.listen(mailer)
    async with mailer:
        refused = [
            await refusal(mailer, "step.taken", headers={"X-Long": "x" * MOST}),
            await refusal(mailer, "step." + "x" * 5000),
        ]

        await stage.calm(mailer)

    await stage.check()
    assert [isinstance(one, EventBusError) for one in refused] == [True, True]
    assert stage.history.of(What.LOST) == []
