"""F19: somebody deletes, changes or pauses under a running service what it stands on."""

import time
from typing import cast

import pytest

from eventbus import EventService
from tests.faults.harness.ground import ApiRefusedError, Ground
from tests.faults.harness.history import What
from tests.faults.harness.stage import Stage
from tests.faults.harness.step import StepTaken
from tests.waiting import comes_true, eventually

pytestmark = [pytest.mark.faults, pytest.mark.nats]

DURABLE = "EVENTS.mailer__send"
BACK_WITHIN = 10.0
GONE = "the durable doesn't come back"


def steps(thread: str, count: int) -> list[StepTaken]:
    return [StepTaken(thread=thread, number=n) for n in range(count)]


async def test_f19_a_durable_that_is_paused_and_then_deleted_neither_skips_nor_replays(
    stage: Stage,
) -> None:
    mailer = stage.service()
    source = stage.service("source")
    stage.listen(mailer)
    async with mailer, source:
        await stage.emit(mailer, *steps("before", 100))
        await stage.drained()
        await pause(stage.ground, "2030-01-01T00:00:00Z")
        await stage.emit(source, *steps("paused", 20))
        held = await stage.ground.backlog("mailer__send")
        await pause(stage.ground, "1970-01-01T00:00:00Z")
        await stage.drained()

        await stage.ground.call(f"CONSUMER.DELETE.{DURABLE}")
        await stage.emit(source, *steps("gap", 100))
        await stage.handled(*(one.mark for one in steps("gap", 100)), seconds=BACK_WITHIN)
        await stage.calm(mailer)

    await stage.check()
    assert held == 20
    assert set(stage.history.counts(What.EFFECT).values()) == {1}


async def test_f19_a_durable_that_is_deleted_under_load_loses_nothing(stage: Stage) -> None:
    mailer = stage.service()
    stage.listen(mailer)
    async with mailer:
        async with stage.load(mailer) as load:
            for _ in range(3):
                await load.more(100)
                await eventually(lambda: exists(stage.ground, DURABLE), BACK_WITHIN)
                await stage.ground.call(f"CONSUMER.DELETE.{DURABLE}")
            await load.more(100)
        await eventually(lambda: exists(stage.ground, DURABLE), BACK_WITHIN)
        await stage.calm(mailer)

    await stage.check()


async def test_f19_a_stream_that_is_deleted_comes_back_and_all_goes_on(stage: Stage) -> None:
    mailer = stage.service()
    stage.listen(mailer)
    async with mailer:
        await stage.emit(mailer, *steps("before", 50))
        await stage.drained()
        lost = stage.history.marks(What.STORED)
        await stage.ground.delete("EVENTS")
        deleted = time.monotonic()
        await stage.emit(mailer, *steps("after", 50))
        took = time.monotonic() - deleted
        await stage.handled(*(one.mark for one in steps("after", 50)), seconds=BACK_WITHIN)
        await stage.calm(mailer)

    stage.took("until emits are stored again", took, BACK_WITHIN)
    await stage.check(removed=lost)


async def test_f19_a_durable_that_somebody_narrows_comes_back_without_a_gap(
    stage: Stage,
) -> None:
    mailer = stage.service()
    source = stage.service("source")
    stage.listen(mailer)
    async with mailer, source:
        await stage.emit(mailer, *steps("before", 50))
        await stage.drained()
        await edit(stage.ground, filter_subjects=["events.other.happened"])
        await stage.emit(source, *steps("missed", 50))
        await stage.handled(*(one.mark for one in steps("missed", 50)), seconds=BACK_WITHIN)
        await stage.calm(mailer)

    await stage.check()
    assert set(stage.history.counts(What.EFFECT).values()) == {1}


async def test_f19_a_durable_that_somebody_changes_is_put_right_or_told_of(
    stage: Stage,
) -> None:
    mailer = stage.service()
    stage.listen(mailer)
    async with mailer:
        before = await config(stage.ground)
        await edit(stage.ground, ack_wait=60_000_000_000, max_ack_pending=1)
        back = await comes_true(lambda: is_config(stage.ground, before), BACK_WITHIN)
        assert back, "the durable stays as somebody changed it"

        await edit(stage.ground, filter_subjects=[">"])
        told = await comes_true(lambda: is_told(mailer, "filter_subjects"), BACK_WITHIN)
        assert told, "readiness doesn't tell of a change that it can't undo"
        await edit(stage.ground, filter_subjects=before["filter_subjects"])
        await stage.calm(mailer)

    await stage.check()


async def edit(ground: Ground, **fields: object) -> None:
    """Change the durable as an operator's tool does."""
    changed = {"stream_name": "EVENTS", "config": {**await config(ground), **fields}}
    await ground.call(f"CONSUMER.CREATE.{DURABLE}", {**changed, "action": "update"})


async def config(ground: Ground) -> dict[str, object]:
    return cast("dict[str, object]", (await ground.durable("mailer__send"))["config"])


async def is_config(ground: Ground, wanted: dict[str, object]) -> bool:
    return await config(ground) == wanted


async def is_told(events: EventService, word: str) -> bool:
    return any(word in problem for problem in events.status().problems)


async def pause(ground: Ground, until: str) -> None:
    await ground.call(f"CONSUMER.PAUSE.{DURABLE}", {"pause_until": until})


async def exists(ground: Ground, durable: str) -> bool:
    try:
        await ground.call(f"CONSUMER.INFO.{durable}")
    except ApiRefusedError:
        return False
    return True
