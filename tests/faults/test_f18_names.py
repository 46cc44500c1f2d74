"""F18: names, ids and headers that would mean something else to the server."""

import pytest

from eventbus import Context, EventBusError, EventService
from tests.faults.harness.history import What
from tests.faults.harness.stage import Stage
from tests.faults.harness.step import StepTaken

pytestmark = [pytest.mark.faults, pytest.mark.nats]

DATA = {"thread": "inject", "number": 1}
NAMES = (
    "step.*",
    "step.>",
    ">",
    "*",
    "",
    ".",
    "step.",
    ".step",
    "step..taken",
    "step taken",
    "step.taken ",
    "step.\ttaken",
    "step.taken\r\nPUB events.step.taken 2\r\n{}",
    "step.taken\n",
    "step.\x00",
    "step.\u2028",
    "step.\udcff",
    "stéP.taken",
    "Step.Taken",
    "$JS.API.STREAM.DELETE.EVENTS",
    "../step.taken",
    ".".join(["step"] * 300),
    "step.taken.x.y.z",
    "x" * 5000 + ".taken",
)
HEADERS = (
    {"X\r\nNats-Msg-Id": "e"},
    {"X: Y": "e"},
    {"": "e"},
    {"X\x00": "e"},
    {"Näme": "e"},
    {"Nats-Msg-Id": "e"},
    {"nats-trace-only": "true"},
    {"Nats-Trace-Dest": "events.step.taken"},
    {"Nats-Rollup": "all"},
    {"Nats-TTL": "1s"},
    {"Nats-Expected-Last-Sequence": "0"},
    {"Nats-Schedule": "@at 2030-01-01T00:00:00Z"},
    {"ce-id": "e"},
    {"CE-Type": "user.created"},
    {"Eventbus-Dead-Reason": "e"},
    {"Eventbus-Attempt": "99"},
)
IDS = ("", " ", "a\r\nNats-Rollup: all", "a\x00", "a\u2028", "é", "x" * 200)


async def test_f18_what_would_mean_something_to_the_server_is_refused_and_nothing_is_sent(
    stage: Stage,
) -> None:
    source = stage.service("source", emit_timeout=10)
    stage.listen(source)
    async with source:
        assert await tried(source, "step.taken", headers={"X-Fine": "yes"})
        await stage.drained()
        before = await stage.ground.last_sequence()
        accepted: list[object] = []

        for name in NAMES:
            accepted += await tried(source, name)
        for headers in HEADERS:
            accepted += await tried(source, "step.taken", headers=headers)
        for id in IDS:
            accepted += await tried(source, "step.taken", id=id)
            accepted += await tried(source, "step.taken", correlation_id=id)

        assert accepted == []
        assert await stage.ground.last_sequence() == before
        assert source.status().ready
    assert stage.history.of(What.LOST) == []


async def tried(events: EventService, name: str, **options: object) -> list[object]:
    """Return what was emitted that shouldn't; nothing where it was refused by an error of ours."""
    try:
        await events.emit(name, DATA, **options)  # type: ignore[arg-type]
    except EventBusError:
        return []
    except Exception as exc:  # noqa: BLE001 - refused, but not by us
        return [(name[:60], options, repr(exc)[:80])]
    return [(name[:60], options)]


async def test_f18_a_header_of_the_users_own_stays_one_header_whatever_it_holds(
    stage: Stage,
) -> None:
    mailer = stage.service()
    stage.listen(mailer)
    seen: list[str] = []

    async def look(_event: StepTaken, context: Context) -> None:
        seen.append(context.headers["x-note"])

    mailer.subscribe(StepTaken, look, name="look")
    values = ["a\r\nNats-Msg-Id: e\r\n\r\n", "\x00", "é \u2028 %41", " edges "]
    async with mailer:
        for number, value in enumerate(values):
            data = {"thread": "note", "number": number}
            await mailer.emit("step.taken", data, headers={"X-Note": value})
        await stage.drained()

    assert seen == values
    ids = [one.id for one in await stage.ground.stored()]
    assert "e" not in ids
    assert len(ids) == len(values)
