"""F11: the stream, or the server's storage, is full."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eventbus import BackpressureError, EventService
from eventbus.embedded import NatsServer
from tests.faults.harness.history import What
from tests.faults.harness.stage import Stage
from tests.faults.harness.step import StepTaken

pytestmark = [pytest.mark.faults, pytest.mark.nats]

MB = 1024 * 1024
NO_LIMIT = -1
"""The stream may have all the room that the server has."""
FILLER = "x" * 50_000
AT_ONCE = 3.0


@pytest.fixture
async def small(_nats_binary: None, tmp_path: Path) -> AsyncIterator[Stage]:
    """Give a stage whose server has little room for files."""
    store = tmp_path / "nats"
    config = f'jetstream {{ store_dir: "{store}", max_file_store: {5 * MB} }}'
    with NatsServer(store=store, jetstream=False, config=config) as server:
        stage = Stage(server.url, tmp_path)
        yield stage
        await stage.close()


@pytest.mark.parametrize("limit", [MB, NO_LIMIT], ids=["stream", "server"])
async def test_f11_without_room_emits_say_so_at_once_and_go_on_when_there_is(
    small: Stage, limit: int
) -> None:
    source = small.service("source", max_bytes=MB)
    mailer = small.service("mailer", max_bytes=MB)
    small.listen(mailer)
    async with mailer:
        pass  # its durable is there, and nobody works it
    async with source:
        await small.ground.edit("EVENTS", max_bytes=limit)
        refused, took = await fill(small, source)
        before = {one.mark for one in await small.ground.stored()}
        assert before >= small.history.marks(What.STORED)

        await small.ground.call("STREAM.PURGE.EVENTS")
        await small.ground.edit("EVENTS", max_bytes=MB)
        await small.witness.emit(source, StepTaken(thread="after", number=1))
        async with mailer:
            await small.calm(mailer)

    small.took("that a refusal takes", took, AT_ONCE)
    await small.check(removed=before)
    assert isinstance(refused, BackpressureError), f"it only says {refused!r}"
    assert refused.stream == "EVENTS"


async def fill(stage: Stage, events: EventService) -> tuple[Exception, float]:
    """Emit until there is no room; return what is raised then, and how long that takes."""
    for number in range(200):
        began = time.monotonic()
        try:
            await stage.witness.emit(
                events, StepTaken(thread="fill", number=number, filler=FILLER)
            )
        except Exception as exc:  # noqa: BLE001 - its kind is looked at last
            return exc, time.monotonic() - began
    raise AssertionError("200 events of 50 kB fit")
