"""F16 and F17: whatever bytes anybody puts on the subject of an event, or into a subject."""

import json

import pytest

from tests.faults.harness.history import What
from tests.faults.harness.raw import hpub, pub, put
from tests.faults.harness.stage import Stage
from tests.faults.harness.step import StepTaken
from tests.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.nats]

SUBJECT = b"events.step.taken"
GOOD = b'{"thread":"raw","number":1}'
NAMED = b"ce-id: %b\r\nce-type: step.taken\r\n"
DEEP = b"[" * 10_000 + b"]" * 10_000

BODIES = {
    "empty": b"",
    "no JSON": b"hello",
    "half of it": b'{"thread":"raw","num',
    "not UTF-8": b'{"thread":"\xff\xfe","number":1}',
    "NaN": b'{"thread":"raw","number":NaN}',
    "another type": b'{"thread":"raw","number":"many"}',
    "a missing field": b'{"thread":"raw"}',
    "a list": b"[1,2]",
    "deep": b'{"thread":"raw","number":1,"filler":' + DEEP + b"}",
    "deep and alone": DEEP,
    "a huge number": b'{"thread":"raw","number":' + b"9" * 5000 + b"}",
    "many keys": json.dumps({f"k{n}": n for n in range(20_000)}).encode(),
    "a lone surrogate": b'{"thread":"\\ud800","number":1}',
}
"""Bodies that aren't a step, under headers that say that they are."""
WHOLE = {
    "no headers": pub(SUBJECT, GOOD),
    "no id": hpub(SUBJECT, b"ce-type: step.taken\r\n", GOOD),
    "no type": hpub(SUBJECT, b"ce-id: raw-type\r\n", GOOD),
    "another event's type": hpub(SUBJECT, b"ce-id: raw-other\r\nce-type: user.created\r\n", GOOD),
    "headers of bytes": hpub(SUBJECT, b"ce-id: \xff\xfe\r\nce-type: step.taken\r\n", GOOD),
    "headers without sense": hpub(SUBJECT, b": :\r\nnonsense\r\n\x00: \x01\r\n", GOOD),
    "an endless id": hpub(SUBJECT, NAMED % (b"x" * 3000), GOOD),
}


async def test_f16_whatever_isnt_an_event_is_buried_untried_and_the_listener_goes_on(
    stage: Stage,
) -> None:
    mailer = stage.service()
    stage.listen(mailer)
    lines = [*WHOLE.values()]
    for number, body in enumerate(BODIES.values()):
        lines.append(hpub(SUBJECT, NAMED % b"raw-%d" % number, body))
    async with mailer:
        for line in lines:
            await put(stage.url, line)

        await eventually(lambda: are_buried(stage, len(lines)), 15)
        await stage.emit(mailer, StepTaken(thread="good", number=1))
        await stage.calm(mailer)

    letters = await stage.ground.letters()
    assert {one.reason for one in letters} == {"invalid"}
    assert {one.attempts for one in letters} == {0}
    assert [one.body for one in letters][-len(BODIES) :] == [*BODIES.values()]
    assert {one.mark for one in stage.history.of(What.BEGUN)} == {"good:1", "probe:1"}
    assert stage.history.of(What.LOST) == []


async def test_f17_a_subject_that_isnt_text_stops_nobody(stage: Stage) -> None:
    mailer = stage.service()
    stage.listen(mailer, "send")
    stage.listen(mailer, "all", target="step.*")
    async with mailer:
        await put(stage.url, pub(b"events.step.\xff\xfe", GOOD))
        await put(stage.url, hpub(b"events.step.\xff", NAMED % b"raw-1", GOOD))

        await eventually(lambda: are_buried(stage, 2))
        await stage.emit(mailer, StepTaken(thread="good", number=1))
        await stage.handled("good:1", listener="send")
        await stage.handled("good:1", listener="all")
        await stage.calm(mailer)

    assert [one.listener for one in await stage.ground.letters()] == ["all", "all"]
    assert stage.history.of(What.LOST) == []


async def are_buried(stage: Stage, count: int) -> bool:
    return len(await stage.ground.letters()) == count
