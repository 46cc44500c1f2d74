"""F5: the line between a service and its server: slow, cut, dead, or dead one way."""

import time

import pytest

from tests.faults.harness.history import What
from tests.faults.harness.proxy import Proxy
from tests.faults.harness.stage import Stage
from tests.faults.harness.step import StepTaken
from tests.waiting import comes_true

pytestmark = [pytest.mark.faults, pytest.mark.nats]

NOTICED_WITHIN = 6.0
EMIT_TIMEOUT = 2.0


@pytest.mark.parametrize("fault", ["black_hole", "lose_answers", "lose_requests"])
async def test_f05_a_line_that_is_dead_is_noticed_and_nothing_is_lost(
    stage: Stage, fault: str
) -> None:
    async with Proxy(stage.url) as proxy:
        mailer = stage.service(url=proxy.url, emit_timeout=20, connect_timeout=1)
        stage.listen(mailer)

        async def isnt_ready() -> bool:
            return not mailer.status().ready

        async with mailer:
            async with stage.load(mailer) as load:
                await load.more(100)
                getattr(proxy, fault)()
                noticed = await comes_true(isnt_ready, NOTICED_WITHIN)
                proxy.restore()
                await load.more(100)
            await stage.calm(mailer)

    await stage.check()
    assert noticed, "nobody noticed that the line was dead"


async def test_f05_an_emit_into_a_black_hole_ends_at_its_deadline(stage: Stage) -> None:
    step = StepTaken(thread="hole", number=1)
    async with Proxy(stage.url) as proxy:
        mailer = stage.service(url=proxy.url, emit_timeout=EMIT_TIMEOUT, connect_timeout=1)
        stage.listen(mailer)
        async with mailer:
            proxy.black_hole()
            began = time.monotonic()
            with pytest.raises(Exception):  # noqa: B017, PT011 - the history tells which
                await stage.witness.emit(mailer, step)
            took = time.monotonic() - began
            proxy.restore()
            await stage.calm(mailer)

    stage.took("that an emit took", took, EMIT_TIMEOUT + 0.5)
    await stage.check()
    assert stage.history.marks(What.UNKNOWN) == {step.mark}


async def test_f05_a_slow_line_that_breaks_all_the_time_loses_and_doubles_nothing(
    stage: Stage,
) -> None:
    async with Proxy(stage.url, seed=5) as proxy:
        mailer = stage.service(url=proxy.url, emit_timeout=25)
        stage.listen(mailer, ack_wait=5.0)
        async with mailer:
            proxy.latency, proxy.jitter, proxy.resets = 0.2, 0.15, 0.01
            async with stage.load(mailer, width=8) as load:
                await load.more(50, seconds=30)
                proxy.reset()
                await load.more(50, seconds=30)
            proxy.latency, proxy.jitter, proxy.resets = 0.0, 0.0, 0.0
            await stage.calm(mailer)

    await stage.check()
