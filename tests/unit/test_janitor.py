"""What a janitor decides: how far each subject may be purged, and when it does anything at all."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from eventbus.drivers.room import DurableState, Fill, holders
from eventbus.errors import DriverError, NotConnectedError
from eventbus.telemetry.conditions import (
    DurablesChecked,
    JanitorFailed,
    LaterFilling,
    RoomMade,
    RoomShort,
    StreamMeasured,
    UnreadAging,
)
from eventbus.telemetry.signals import Happened
from eventbus.worker.janitor import Janitor, marks_purgeable, purgeable
from tests.unit.conftest import START, StillClock

CREATED = "events.user.created"
LAST = 100


def durable(
    name: str = "mail__send",
    *filters: str,
    delivered: int = 0,
    acknowledged: int = 0,
    pending: int = 0,
    unsettled: int = 0,
) -> DurableState:
    return DurableState(
        name, filters or (CREATED,), delivered, acknowledged, pending, unsettled, active=START
    )


@pytest.mark.parametrize(
    ("state", "handled"),
    [
        (durable(delivered=40, acknowledged=40), 40),
        (durable(delivered=40, acknowledged=40, pending=9), 40),
        (durable(delivered=40, acknowledged=25, unsettled=3), 25),
        (durable(delivered=40, acknowledged=0, unsettled=3), 0),
        # Idle for long: what it was given last is far behind the stream's end, and that is what
        # counts. Nothing is pending in the view of a server that hasn't counted yet.
        (durable(delivered=7, acknowledged=7, pending=0), 7),
        (durable(delivered=7, acknowledged=0, pending=0), 7),
    ],
)
def test_a_durable_has_handled_what_it_was_given_and_nothing_more(
    state: DurableState, handled: int
) -> None:
    assert state.handled == handled


@pytest.mark.parametrize(
    ("durables", "thorough", "to"),
    [
        ([durable(delivered=40)], True, 40),
        ([durable(delivered=400)], True, LAST),
        ([durable(delivered=40)], False, 40),
        ([durable(delivered=80)], False, 49),
        ([durable(delivered=40), durable("audit__trail", "events.>", delivered=80)], True, 40),
        ([durable(delivered=40), durable("audit__trail", delivered=30)], True, 30),
        ([durable(delivered=40), durable("other__one", "events.user.updated")], True, 40),
        ([durable(delivered=40), durable("foreign", delivered=0)], True, 0),
        ([durable(delivered=40), replace(durable("every", delivered=9), filters=())], True, 9),
        ([durable("other__one", "events.user.updated", delivered=80)], True, 49),
        ([durable("other__one", "events.user.updated", delivered=80)], False, 49),
        ([], True, 49),
    ],
)
def test_how_far_a_subject_may_be_purged(
    durables: list[DurableState], thorough: bool, to: int
) -> None:
    assert purgeable(CREATED, durables, LAST, recent=50, thorough=thorough) == to


@pytest.mark.parametrize(
    ("stored", "others", "thorough", "to"),
    [
        ([], [], True, 80),
        ([], [], False, 49),
        ([CREATED], [], True, 80),
        ([CREATED], [durable("audit__trail", "events.>", delivered=30)], True, 30),
        (["events.user.updated"], [durable("audit__trail", "events.>", delivered=30)], True, 80),
        ([], [durable("audit__trail", "events.>", delivered=30)], True, 80),
    ],
)
def test_how_far_marks_may_be_purged(
    stored: list[str], others: list[DurableState], thorough: bool, to: int
) -> None:
    one = durable(delivered=80)
    every = [one, *others]

    found = marks_purgeable(one, stored, every, LAST, recent=50, thorough=thorough)

    assert found == to


def test_those_hold_the_room_who_have_most_left() -> None:
    durables = [
        durable("idle__one", delivered=100),
        durable("slow__one", pending=300),
        durable("quick__one", pending=3, unsettled=16),
        durable("stopped__one", pending=5000),
        durable("late__one", pending=400, unsettled=200),
    ]

    assert holders(durables) == ("stopped__one", "late__one")
    assert holders(durables[:1]) == ()


class FakeRoom:
    """A stream as a test says it is, and what is purged of it."""

    def __init__(self) -> None:
        self.max_age = 7 * 86400.0
        self.duplicate_window = 600.0
        self.bytes = [0]
        """How full it is, each time it is asked; the last one stays."""
        self.last = LAST
        self.waiting = Fill("EVENTS_LATER", 0, 0, 1000, 0)
        self.readers: list[DurableState] = []
        self.stored = [CREATED]
        self.parked: list[str] = []
        self.marks = False
        self.freed: list[int] = []
        """What the next purges remove; then nothing."""
        self.has_turn = True
        self.raises: list[Exception] = []
        self.journal: list[str] = []
        self.oldest = START
        self.unread_since: datetime | None = None
        self.looks = 0

    async def events(self) -> Fill:
        if self.raises:
            raise self.raises.pop(0)
        used = self.bytes.pop(0) if len(self.bytes) > 1 else self.bytes[0]
        return Fill("EVENTS", used, used, 1000, self.last, self.oldest)

    async def later(self) -> Fill:
        return self.waiting

    async def durables(self) -> Sequence[DurableState]:
        return self.readers

    async def subjects(self) -> Sequence[str]:
        return self.stored

    async def retries(self) -> Sequence[str]:
        return self.parked

    async def stored_before(self, time: datetime) -> int:
        return 50

    async def oldest_unread(self, durable: DurableState) -> datetime | None:
        return self.unread_since

    async def settle_position(self) -> int:
        self.journal.append("settle")
        return self.last

    async def purge(self, subject: str, last: int) -> int:
        self.journal.append(f"purge {subject} {last}")
        return self.freed.pop(0) if self.freed else 0

    async def has_marks(self) -> bool:
        return self.marks

    async def purge_marks(self, durable: str, last: int) -> int:
        self.journal.append(f"purge marks of {durable} {last}")
        return self.freed.pop(0) if self.freed else 0

    async def take_turn(self) -> bool:
        return self.has_turn

    async def pressed(self, within: float) -> bool:
        self.looks -= 1
        if not self.looks:
            raise asyncio.CancelledError
        return False


class Desk:
    """A janitor with its room, its clock, and what it told."""

    def __init__(self) -> None:
        self.room = FakeRoom()
        self.clock = StillClock()
        self.told: list[Happened] = []
        self.janitor = Janitor(self.room, self.told.append, self.clock)

    def of(self, kind: type[Happened]) -> list[Happened]:
        return [one for one in self.told if isinstance(one, kind)]


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_nothing_is_done_while_there_is_room(desk: Desk) -> None:
    desk.room.bytes = [799]
    desk.room.readers = [durable(delivered=LAST)]

    await desk.janitor.look()

    assert "purge" not in "".join(desk.room.journal)
    assert desk.of(StreamMeasured)[0] == StreamMeasured(
        Fill("EVENTS", 799, 799, 1000, LAST, START)
    )


async def test_room_is_made_from_80_percent_on(desk: Desk) -> None:
    desk.room.bytes = [800, 800, 300]
    desk.room.readers = [durable(delivered=40)]
    desk.room.freed = [10]

    await desk.janitor.look()

    assert desk.room.journal == ["settle", f"purge {CREATED} 40"]
    assert desk.of(RoomMade) == [RoomMade("EVENTS", 10)]
    assert desk.of(RoomShort) == []


async def test_ids_are_forgotten_only_where_that_alone_makes_room(desk: Desk) -> None:
    desk.room.bytes = [900]
    desk.room.readers = [durable(delivered=80)]

    await desk.janitor.look()

    assert desk.room.journal == ["settle", f"purge {CREATED} 49", f"purge {CREATED} 80"]


async def test_who_holds_the_room_is_told_once_and_again_after_minutes(desk: Desk) -> None:
    desk.room.bytes = [900]
    desk.room.readers = [durable(delivered=10, pending=90)]

    await desk.janitor.look()
    await desk.janitor.look()
    desk.clock.move(301)
    await desk.janitor.look()

    assert desk.of(RoomShort) == [RoomShort("EVENTS", 900, 1000, ("mail__send",))] * 2


async def test_it_stops_to_purge_where_nothing_comes_of_it(desk: Desk) -> None:
    desk.room.bytes = [900]
    desk.room.readers = [durable(delivered=40)]
    desk.room.freed = [10, 10]

    for _ in range(5):
        await desk.janitor.look()

    assert desk.room.journal.count(f"purge {CREATED} 40") == 3


async def test_a_stream_that_was_made_anew_is_purged_from_its_beginning(desk: Desk) -> None:
    desk.room.bytes = [900]
    desk.room.readers = [durable(delivered=40)]
    await desk.janitor.look()
    desk.room.last = 20
    desk.room.readers = [durable(delivered=15)]

    await desk.janitor.look()

    assert desk.room.journal[-1] == f"purge {CREATED} 15"


async def test_somebody_elses_turn_is_respected(desk: Desk) -> None:
    desk.room.bytes = [900]
    desk.room.has_turn = False
    desk.room.readers = [durable(delivered=40, pending=60)]

    await desk.janitor.look()

    assert desk.room.journal == []
    assert desk.of(DurablesChecked) == [DurablesChecked((), ())]


async def test_a_publish_without_room_counts_whatever_the_numbers_say(desk: Desk) -> None:
    desk.room.bytes = [10]
    desk.room.readers = [durable(delivered=40)]

    await desk.janitor.look(pressed=True)

    assert desk.room.journal == ["settle", f"purge {CREATED} 40"]


async def test_for_a_large_event_ids_are_forgotten_too(desk: Desk) -> None:
    desk.room.bytes = [10]
    desk.room.readers = [durable(delivered=80)]

    await desk.janitor.look(pressed=True)

    assert desk.room.journal == ["settle", f"purge {CREATED} 49", f"purge {CREATED} 80"]


async def test_marks_go_behind_the_events_that_they_speak_of(desk: Desk) -> None:
    desk.room.bytes = [900]
    desk.room.marks = True
    desk.room.readers = [durable(delivered=40)]

    await desk.janitor.look()

    assert desk.room.journal == [
        "settle",
        f"purge {CREATED} 40",
        "purge marks of mail__send 40",
    ]


async def test_a_retry_that_nobody_takes_stays(desk: Desk) -> None:
    mine, gone = "events-retry.mail.send.user.created", "events-retry.mail.gone.user.created"
    desk.room.bytes = [900]
    desk.room.stored, desk.room.parked = [], [mine, gone]
    desk.room.readers = [durable("mail__send", "events-retry.mail.send.>", delivered=40)]

    await desk.janitor.look()

    assert desk.room.journal == ["settle", f"purge {mine} 40"]


@pytest.mark.parametrize(
    ("fill", "waiting", "settles"),
    [
        (100, Fill("EVENTS_LATER", 9, 9, 1000, 999), False),
        (100, Fill("EVENTS_LATER", 9, 9, 1000, 1000), True),
        (100, Fill("EVENTS_LATER", 9, 500, 1000, 3), True),
        (500, Fill("EVENTS_LATER", 9, 9, 1000, 3), True),
        (500, Fill("EVENTS_LATER", 0, 0, 1000, 0), False),
    ],
)
async def test_what_has_left_the_stream_of_what_waits_is_removed_in_time(
    desk: Desk, fill: int, waiting: Fill, settles: bool
) -> None:
    desk.room.bytes, desk.room.waiting = [fill], waiting

    await desk.janitor.look()
    desk.clock.move(60)
    await desk.janitor.look()

    assert desk.room.journal == ["settle"] * settles


async def test_a_stream_of_what_waits_that_fills_is_an_alarm(desk: Desk) -> None:
    desk.room.waiting = Fill("EVENTS_LATER", 9, 800, 1000, 3)

    await desk.janitor.look()

    assert desk.of(LaterFilling) == [LaterFilling("EVENTS_LATER", 800, 1000)]


@pytest.mark.parametrize(("days", "alarms"), [(5, 0), (6, 1)])
async def test_an_unread_event_that_is_nearly_too_old_is_an_alarm(
    desk: Desk, days: int, alarms: int
) -> None:
    desk.room.readers = [durable(delivered=10, pending=3)]
    desk.room.oldest = START - timedelta(days=6.5)
    desk.room.unread_since = START - timedelta(days=days)

    await desk.janitor.look()

    told = [UnreadAging("mail__send", 3, days * 86400.0, 7 * 86400.0)]
    assert desk.of(UnreadAging) == told * alarms
    assert desk.of(DurablesChecked) == [DurablesChecked((), ("mail__send",) * alarms)]


@pytest.mark.parametrize(
    ("state", "unattended"),
    [
        (durable(pending=3), True),
        (durable(unsettled=3), True),
        (durable(), False),
        (replace(durable(pending=3), waiting=1), False),
        (replace(durable(pending=3), paused=True), False),
        (replace(durable(pending=3), active=START + timedelta(seconds=30)), False),
    ],
)
async def test_a_durable_is_unattended_once_nobody_has_asked_for_its_events_for_minutes(
    desk: Desk, state: DurableState, unattended: bool
) -> None:
    desk.clock.move(301)
    desk.room.readers = [state]

    await desk.janitor.look()

    assert desk.of(DurablesChecked) == [DurablesChecked(("mail__send",) * unattended, ())]


async def test_what_fails_is_told_and_tried_again(desk: Desk) -> None:
    desk.room.raises = [DriverError("no leader"), NotConnectedError("gone"), RuntimeError("ours")]
    desk.room.looks = 4

    with pytest.raises(asyncio.CancelledError):
        await desk.janitor.run()

    failed = [type(one.error) for one in desk.told if isinstance(one, JanitorFailed)]
    assert failed == [DriverError, RuntimeError]
    assert len(desk.of(StreamMeasured)) == 2
