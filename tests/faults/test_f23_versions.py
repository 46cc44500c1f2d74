"""F23: two versions of an event, emitted and handled by an old and a new service."""

import asyncio
from typing import Any

import pytest

from eventbus import Event, EventService, Retry, upcast
from eventbus.delivery import Outcome, Reason
from eventbus.embedded import NatsServer
from eventbus.settings import Settings
from eventbus.telemetry.signals import Happened, Settled
from eventbus.upcast import Payload

pytestmark = [pytest.mark.faults, pytest.mark.nats]


class FieldAddedV1(Event, name="field.added"):
    id: str


class FieldAdded(Event, name="field.added", version=2):
    id: str
    note: str = "none"


class FieldRequiredV1(Event, name="field.required"):
    id: str


class FieldRequired(Event, name="field.required", version=2):
    id: str
    note: str


class FieldRenamedV1(Event, name="field.renamed"):
    mail: str


class FieldRenamed(Event, name="field.renamed", version=2):
    email: str


class TypeNarrowedV1(Event, name="type.narrowed"):
    count: str


class TypeNarrowed(Event, name="type.narrowed", version=2):
    count: int


class TypeRefusedV1(Event, name="type.refused"):
    count: str


class TypeRefused(Event, name="type.refused", version=2):
    count: int


@upcast("field.added", from_version=1)
def same(data: Payload) -> Payload:
    """Return what fits as it is."""
    return data


@upcast("field.required", from_version=1)
def annotate(data: Payload) -> Payload:
    """Fill in what old services don't know."""
    return data | {"note": "before notes"}


@upcast("field.renamed", from_version=1)
def rename(data: Payload) -> Payload:
    """Call it as it is called now."""
    return {"email": data["mail"]}


@upcast("type.narrowed", from_version=1)
def narrow(data: Payload) -> Payload:
    """Read a number that was written as text."""
    return {"count": int(str(data["count"]))}


@upcast("type.refused", from_version=1)
def keep(data: Payload) -> Payload:
    """Forget that it was text."""
    return data


class Side:
    """A service of one version: it listens to the events of that version."""

    def __init__(self, name: str, settings: Settings, *events: type[Event]) -> None:
        self.service = EventService(name, settings=settings, observers=[self._observe])
        self.got: dict[str, list[Event]] = {}
        self.letters: dict[str, list[tuple[Reason | None, str]]] = {}
        self._ended = asyncio.Event()
        for event in events:
            self._listen(event)

    def _listen(self, kind: type[Event]) -> None:
        async def listen(event: Any) -> None:
            self.got.setdefault(type(event).event_spec.name, []).append(event)

        assert kind.event_spec is not None, "declared without a name"
        name = kind.event_spec.name.replace(".", "_")
        self.service.subscribe(kind, name=name, retry=Retry(attempts=1))(listen)

    def _observe(self, happened: Happened) -> None:
        if isinstance(happened, Settled):
            if happened.outcome is Outcome.DEAD:
                letter = (happened.reason, happened.detail)
                self.letters.setdefault(happened.name, []).append(letter)
            self._ended.set()

    async def until(self, count: int) -> None:
        """Wait until so many deliveries have ended."""
        async with asyncio.timeout(30):
            while sum(len(one) for one in (*self.got.values(), *self.letters.values())) < count:
                self._ended.clear()
                await self._ended.wait()


async def test_f23_what_fits_is_handled_and_what_does_not_becomes_a_letter_with_both_versions(
    nats_server: NatsServer,
) -> None:
    settings = Settings(nats_url=nats_server.url)
    old = Side(
        "old",
        settings,
        FieldAddedV1,
        FieldRequiredV1,
        FieldRenamedV1,
        TypeNarrowedV1,
        TypeRefusedV1,
    )
    new = Side("new", settings, FieldAdded, FieldRequired, FieldRenamed, TypeNarrowed, TypeRefused)

    async with old.service, new.service:
        for event in (
            FieldAddedV1(id="a"),
            FieldRequiredV1(id="a"),
            FieldRenamedV1(mail="a"),
            TypeNarrowedV1(count="7"),
            TypeRefusedV1(count="seven"),
        ):
            await old.service.emit(event)
        for newer in (
            FieldAdded(id="b", note="new"),
            FieldRequired(id="b", note="new"),
            FieldRenamed(email="b"),
            TypeNarrowed(count=8),
            TypeRefused(count=8),
        ):
            await new.service.emit(newer)
        await old.until(10)
        await new.until(10)

    def by_version(events: dict[str, list[Event]]) -> dict[str, list[str]]:
        return {name: sorted(str(one) for one in found) for name, found in events.items()}

    assert by_version(old.got) == {
        "field.added": ["id='a'", "id='b'"],
        "field.required": ["id='a'", "id='b'"],
        "field.renamed": ["mail='a'"],
        "type.narrowed": ["count='7'"],
        "type.refused": ["count='seven'"],
    }
    assert by_version(new.got) == {
        "field.added": ["id='a' note='none'", "id='b' note='new'"],
        "field.required": ["id='a' note='before notes'", "id='b' note='new'"],
        "field.renamed": ["email='a'", "email='b'"],
        "type.narrowed": ["count=7", "count=8"],
        "type.refused": ["count=8"],
    }
    reads = "(version 2, read as version 1)"
    assert {
        name: [(reason, reads in detail) for reason, detail in found]
        for name, found in old.letters.items()
    } == {
        name: [(Reason.INVALID, True)]
        for name in ("field.renamed", "type.narrowed", "type.refused")
    }
    ((reason, detail),) = new.letters.pop("type.refused")
    assert (reason, new.letters) == (Reason.INVALID, {})
    assert "(version 1, read as version 2): count" in detail


async def test_f23_a_version_newer_than_all_known_is_read_as_the_newest(
    nats_server: NatsServer,
) -> None:
    settings = Settings(nats_url=nats_server.url)
    new = Side("new", settings, TypeRefused)

    class Future(Event, name="type.refused", version=9):
        count: int
        unit: str

    async with new.service:
        await new.service.emit(Future(count=3, unit="kg"))
        await new.until(1)

    assert [str(one) for one in new.got["type.refused"]] == ["count=3"]
