"""F26: the read loop dies, callbacks raise, the event loop is blocked."""

import asyncio

import pytest

from eventbus import Discard
from tests.faults.harness.history import What
from tests.faults.harness.proxy import Proxy
from tests.faults.harness.stage import Stage
from tests.faults.harness.step import StepTaken
from tests.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.nats]

BACK_WITHIN = 10.0


def raises(_happened: object) -> None:
    raise Discard("observers must not raise, and this one does")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    "nonsense", [b"INFO nonsense\r\n", b"-ERR '\xff'\r\n"], ids=["info", "error"]
)
async def test_f26_a_read_loop_that_dies_is_replaced_while_every_observer_raises(
    stage: Stage, nonsense: bytes
) -> None:
    async with Proxy(stage.url) as proxy:
        mailer = stage.service(url=proxy.url, emit_timeout=20)
        mailer.observe(raises)
        stage.listen(mailer)
        async with mailer:
            async with stage.load(mailer) as load:
                await load.more(50)
                proxy.say(nonsense)
                await load.more(100)
            await stage.calm(mailer)

    stage.took("without an emit", stage.history.longest_gap(), BACK_WITHIN)
    await stage.check()


async def test_f26_a_blocked_loop_is_told_and_when_its_process_is_killed_nothing_is_lost(
    stage: Stage,
) -> None:
    worker = stage.worker(concurrency=8, ack_wait=8.0)
    source = stage.service("source")
    async with source:
        worker.start()
        await stage.started(1)
        await stage.emit(source, *beside("first"), blocking(1, times=1))
        await stage.drained()
        await eventually(lambda: is_logged(stage))
        assert set(stage.history.counts(What.BEGUN).values()) == {1}

        await stage.emit(source, *beside("second"), blocking(2, times=1))
        await stage.history.until(
            lambda: "block:2" in stage.history.marks(What.BEGUN), "it blocks again"
        )
        worker.kill()
        worker.start()
        await stage.drained()

    await stage.check()
    assert await stage.ground.letters() == []


async def test_f26_a_listener_that_always_blocks_for_longer_than_its_lease_is_found(
    stage: Stage,
) -> None:
    worker = stage.worker(concurrency=15, ack_wait=1.0, attempts=3)
    source = stage.service("source")
    async with source:
        worker.start()
        await stage.started(1)
        # Also what stands behind it: that waits for it when all of them are suspects.
        for steps in (beside("before"), [blocking(1)], beside("behind")):
            await stage.emit(source, *steps)
        await stage.drained(45)

    await stage.check()
    letters = await stage.ground.letters()
    assert [(one.mark, one.reason) for one in letters] == [("block:1", "crash")]


def beside(thread: str) -> list[StepTaken]:
    return [StepTaken(thread=thread, number=n, seconds=0.5) for n in range(7)]


def blocking(number: int, times: int = 1_000_000) -> StepTaken:
    return StepTaken(thread="block", number=number, does="block", times=times)


async def is_logged(stage: Stage) -> bool:
    await asyncio.sleep(0)
    return "event loop was blocked" in (stage.folder / "w.log").read_text()
