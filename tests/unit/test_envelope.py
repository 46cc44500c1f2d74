"""The envelope of an event that is emitted now."""

from datetime import UTC, datetime
from typing import Unpack

import pytest

from eventbus.correlation import Handled, Scope
from eventbus.envelope import Envelope
from eventbus.errors import DeclarationError, InvalidEventError
from eventbus.event import Event
from eventbus.ids import MAX_ID
from eventbus.middleware.base import EmitOptions

NOW = datetime(2026, 3, 1, 10, tzinfo=UTC)


class UserCreated(Event, name="user.created", version=2, key="user_id", tags=("crm",)):
    user_id: str


EVENT = UserCreated(user_id="u-1")


def envelope(scope: Scope | None = None, **options: Unpack[EmitOptions]) -> Envelope:
    return Envelope.of(EVENT, source="user", time=NOW, scope=scope or Scope(), **options)


def test_an_envelope_takes_from_the_class_what_it_declares() -> None:
    one = envelope()

    assert (one.name, one.version, one.key, one.tags) == ("user.created", 2, "u-1", ("crm",))
    assert one.body == b'{"user_id":"u-1"}'
    assert (one.source, one.time, one.expires) == ("user", NOW, None)


def test_an_event_that_nothing_caused_begins_a_correlation_under_its_own_id() -> None:
    one = envelope()

    assert one.correlation_id == one.id
    assert one.causation_id is None


def test_an_event_inherits_correlation_cause_and_trace() -> None:
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}

    one = envelope(Scope("c-1", "id-1", trace, Handled("id-1", "mail__send")))

    assert (one.correlation_id, one.causation_id, one.trace) == ("c-1", "id-1", trace)
    assert one.id == Handled("id-1", "mail__send").next_id("user.created", "u-1", one.body)


def test_what_is_given_wins_over_what_is_inherited() -> None:
    scope = Scope("c-1", "id-1", handled=Handled("id-1", "mail__send"))

    one = envelope(scope, id="mine", key="k", correlation_id="c-2")

    assert (one.id, one.key, one.correlation_id) == ("mine", "k", "c-2")
    assert one.causation_id == "id-1"


@pytest.mark.parametrize("value", ["", "a b", "ü", "x" * (MAX_ID + 1), "a\r\nb", "\ud800"])
@pytest.mark.parametrize("option", ["id", "correlation_id"])
def test_an_id_that_can_not_be_carried_is_refused(option: str, value: str) -> None:
    with pytest.raises(InvalidEventError) as raised:
        envelope(**{option: value})  # type: ignore[misc]

    assert [field for field, _ in raised.value.problems] == [option]


def test_a_key_may_be_any_text_but_must_be_text() -> None:
    assert envelope(key="a b\nü").key == "a b\nü"
    with pytest.raises(InvalidEventError, match="key: must be a string of valid Unicode"):
        envelope(key="\ud800")


def test_a_bad_key_is_refused_inside_a_listener_too() -> None:
    scope = Scope(handled=Handled("id-1", "mail__send"))

    with pytest.raises(InvalidEventError, match="key"):
        envelope(scope, key="\ud800")


def test_a_class_without_a_name_can_not_be_emitted() -> None:
    class Base(Event):
        user_id: str

    with pytest.raises(DeclarationError, match="has no name"):
        Envelope.of(Base(user_id="u-1"), source="user", time=NOW, scope=Scope())
