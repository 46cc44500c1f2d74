"""F6: the server stores an event, and its answer doesn't reach the emitter."""

import asyncio

import pytest

from eventbus import EmitUnknown
from tests.faults.harness.history import What
from tests.faults.harness.proxy import Proxy
from tests.faults.harness.stage import Stage
from tests.faults.harness.step import StepTaken
from tests.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.nats]


async def test_f06_an_emit_whose_answer_is_lost_is_stored_once(stage: Stage) -> None:
    async with Proxy(stage.url) as proxy:
        mailer = stage.service(url=proxy.url, emit_timeout=60)
        stage.listen(mailer)
        async with mailer, asyncio.TaskGroup() as group:
            proxy.lose_answers()
            steps = [StepTaken(thread="lost", number=n) for n in range(8)]
            group.create_task(stage.emit(mailer, *steps))
            await eventually(lambda: has_stored(stage, len(steps)))
            proxy.restore()
        async with mailer:
            await stage.calm(mailer)

    assert proxy.back.dropped > 0
    await stage.check()
    stored = stage.history.of(What.STORED)
    assert [one.detail for one in stored] == [""] * 9


async def test_f06_what_an_emit_doesnt_know_is_emitted_again_and_stored_once(
    stage: Stage,
) -> None:
    step = StepTaken(thread="unknown", number=1)
    async with Proxy(stage.url) as proxy:
        mailer = stage.service(url=proxy.url, emit_timeout=1, publish_timeout=0.3)
        stage.listen(mailer)
        async with mailer:
            proxy.lose_answers()
            with pytest.raises((EmitUnknown, TimeoutError)):
                await stage.witness.emit(mailer, step)
            proxy.restore()
            # As an application does: again, as soon as there is a connection.
            await stage.ready(mailer)
            await stage.witness.emit(mailer, step)
            await stage.calm(mailer)

    await stage.check()
    assert stage.history.marks(What.UNKNOWN) == {step.mark}
    assert stage.history.counts(What.EFFECT)[step.mark] == 1


async def has_stored(stage: Stage, count: int) -> bool:
    return await stage.ground.last_sequence() >= count
