"""F14: the stream of dead letters can't take one."""

from collections.abc import Awaitable, Callable

import pytest

from eventbus import Retry, settlement
from tests.faults.harness.history import What
from tests.faults.harness.stage import Stage
from tests.faults.harness.step import StepTaken

pytestmark = [pytest.mark.faults, pytest.mark.nats]

DEAD = "EVENTS_DLQ"
STAYS = 2
"""So often it can't be settled."""

Restore = Callable[[], Awaitable[object]]


async def gone(stage: Stage) -> Restore:
    """Delete the stream."""
    config = await stage.ground.delete(DEAD)
    return lambda: stage.ground.create(config)


async def full(stage: Stage) -> Restore:
    """Fill the stream with letters of somebody else."""
    await stage.ground.edit(DEAD, max_msgs=1)
    await stage.ground.publish("events-dlq.other.old.step.taken", b"{}")
    return lambda: stage.ground.call(f"STREAM.PURGE.{DEAD}")


@pytest.mark.parametrize("fault", [gone, full])
async def test_f14_the_original_stays_until_its_dead_letter_is_stored(
    stage: Stage,
    fault: Callable[[Stage], Awaitable[Restore]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settlement, "STAY_DELAY", 1.0)
    mailer = stage.service(emit_timeout=0.7, publish_timeout=0.3)
    stage.listen(mailer, retry=Retry(attempts=1))
    async with mailer:
        restore = await fault(stage)
        await stage.emit(mailer, StepTaken(thread="dead", number=1, does="raise"))
        await stage.history.until(
            lambda: stage.history.counts(What.BEGUN)["dead:1"] > STAYS, "it stays, and comes again"
        )
        await stage.emit(mailer, StepTaken(thread="good", number=1))
        await stage.handled("good:1")

        await restore()
        await stage.calm(mailer)

    await stage.check()
    (letter,) = await stage.ground.letters()
    assert (letter.mark, letter.reason) == ("dead:1", "exception")
    assert "ValueError" in letter.error
