"""Dead letters: built from a message and a failure, and read back."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from eventbus import deadletter
from eventbus.deadletter import Failure, Origin
from eventbus.delivery import Delivery, Reason
from eventbus.drivers.base import HEADROOM
from eventbus.envelope import Message
from eventbus.errors import DecodeError, InvalidEventError
from tests.unit.conftest import FakeDelivery

NOW = datetime(2026, 3, 1, 10, tzinfo=UTC)
ORIGIN = Origin("mail", "send", "events.user.created")
MESSAGE = Message(
    "events-retry.mail.send.user.created",
    {
        "ce-id": "id-1",
        "ce-type": "user.created",
        "x-tenant": "a%20b",
        "nats-msg-id": "id-1",
        "nats-expected-stream": "EVENTS",
        "eventbus-attempt": "3",
    },
    b'{"user_id": "u-1"}\x00\xff',
    "id-1",
)


def delivery(message: Message = MESSAGE, **changes: Any) -> Delivery:
    return FakeDelivery(message, sequence=7, stored_at=NOW - timedelta(minutes=1), **changes)


def failure(error: BaseException | str, **changes: Any) -> Failure:
    values: dict[str, Any] = {"attempts": 3, "reason": Reason.EXCEPTION, "now": NOW, **changes}
    return deadletter.failure_of(delivery(), values.pop("origin", ORIGIN), error=error, **values)


def built(one: Failure, message: Message = MESSAGE, *, stack: bool = True) -> Message:
    return deadletter.build(message, one, subject="events-dlq.x", id="dlq:1", stack=stack)


def raised(raising: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as excinfo:  # noqa: PT011 - whatever it is
        raising()
    return excinfo.value


def test_a_dead_letter_keeps_the_body_and_the_events_own_headers() -> None:
    letter = built(failure("x"))

    assert letter.body == MESSAGE.body
    assert letter.headers["ce-id"] == "id-1"
    assert letter.headers["x-tenant"] == "a%20b"
    assert letter.headers["eventbus-attempt"] == "3"
    assert [name for name in letter.headers if name.lower().startswith("nats-")] == []
    assert (letter.subject, letter.id) == ("events-dlq.x", "dlq:1")


def test_a_dead_letter_says_what_happened_in_its_headers() -> None:
    error = raised(lambda: int("x"))

    letter = built(failure(error))

    dead = {name: value for name, value in letter.headers.items() if name.startswith("Eventbus-")}
    assert dead.keys() == {
        "Eventbus-Dead-Reason",
        "Eventbus-Dead-Error-Type",
        "Eventbus-Dead-Error-Message",
        "Eventbus-Dead-Error-Stack",
        "Eventbus-Dead-Failed-At",
        "Eventbus-Dead-Attempts",
        "Eventbus-Dead-Listener",
        "Eventbus-Dead-Service",
        "Eventbus-Dead-Original-Subject",
        "Eventbus-Dead-Original-Stream",
        "Eventbus-Dead-Original-Seq",
        "Eventbus-Dead-Fingerprint",
    }
    assert dead["Eventbus-Dead-Reason"] == "exception"
    assert dead["Eventbus-Dead-Error-Type"] == "ValueError"
    assert dead["Eventbus-Dead-Attempts"] == "3"
    assert dead["Eventbus-Dead-Original-Subject"] == "events.user.created"
    assert dead["Eventbus-Dead-Original-Stream"] == "EVENTS"
    assert dead["Eventbus-Dead-Original-Seq"] == "7"


def test_what_is_built_is_read_back() -> None:
    one = failure(raised(lambda: int("größer\r\n")))

    assert deadletter.read(built(one)) == one


def test_an_error_of_the_bus_is_named_by_its_code() -> None:
    error = InvalidEventError(name="user.created", problems=[("email", "Field required")])

    one = failure(error, reason=Reason.INVALID)

    assert (one.error_type, one.error_message) == ("schema.invalid_event", str(error))


def test_an_error_of_the_users_is_named_by_its_module_and_class() -> None:
    class OrderError(Exception):
        pass

    name = f"{__name__}.test_an_error_of_the_users_is_named_by_its_module_and_class"

    assert failure(OrderError("x")).error_type == f"{name}.<locals>.OrderError"


def test_words_stand_for_an_error_where_nothing_was_raised() -> None:
    one = failure("expired", reason=Reason.EXPIRED)

    assert (one.error_type, one.error_message, one.error_stack) == ("", "expired", "")


def test_the_end_of_a_long_stack_is_kept_where_the_error_is() -> None:
    def deep(left: int) -> int:
        return deep(left - 1) if left else 1 // 0

    one = failure(raised(lambda: deep(400)))

    letter = built(one)
    assert len(letter.headers["Eventbus-Dead-Error-Stack"]) <= deadletter.MAX_STACK
    assert one.error_stack.rstrip().endswith(
        "ZeroDivisionError: integer division or modulo by zero"
    )


@pytest.mark.parametrize("text", ["x" * 10_000_000, "ü" * 5000, "😀 " * 5000], ids=len)
def test_a_long_message_is_cut_by_what_the_wire_carries(text: str) -> None:
    one = failure(raised(lambda: (_ for _ in ()).throw(ValueError(text))))

    letter = built(one)
    assert 1000 < len(letter.headers["Eventbus-Dead-Error-Message"]) <= deadletter.MAX_MESSAGE
    assert len(letter.headers["Eventbus-Dead-Error-Stack"]) <= deadletter.MAX_STACK
    assert text.startswith(one.error_message)


def test_a_huge_error_costs_no_more_than_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # Quoting takes some 50 ns a character, on the event loop.
    quoted: list[int] = []
    monkeypatch.setattr(
        deadletter.h,
        "quoted",
        lambda value: quoted.append(len(value)) or value.replace(" ", "%20"),
    )

    failure(raised(lambda: (_ for _ in ()).throw(ValueError("x y" * 1_000_000))))

    assert sum(quoted) < 100_000


def test_without_its_stack_a_letter_fits_wherever_the_event_did() -> None:
    long = type("Long" * 500, (Exception,), {})
    origin = Origin("s" * 64, "l" * 64, "n" * 32 + "." + "e" * 128)
    one = failure(raised(lambda: (_ for _ in ()).throw(long("😀" * 5000))), origin=origin)
    id = "dlq:" + "i" * 250

    letter = deadletter.build(MESSAGE, one, subject="s", id=id, stack=False)

    added = set(letter.headers.items()) - set(MESSAGE.headers.items())
    size = sum(len(f"{name}: {value}\r\n") for name, value in added)
    assert "Eventbus-Dead-Error-Stack" not in letter.headers
    assert size + len(f"Nats-Msg-Id: {id}\r\n") <= HEADROOM


class _UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "error",
    [
        _UnprintableError(),
        FileNotFoundError("caf\udce9"),
        ValueError("\x00\r\nNats-Msg-Id: x"),
        ExceptionGroup("two", [ValueError("a"), KeyError("b")]),
        ValueError(),
    ],
    ids=lambda error: type(error).__name__ + str(len(error.args)),
)
def test_no_error_of_a_listener_can_keep_its_letter_from_being_written(error: Exception) -> None:
    letter = built(failure(raised(lambda: (_ for _ in ()).throw(error))))

    assert all(value.isascii() and value.isprintable() for value in letter.headers.values())
    assert deadletter.read(letter).reason is Reason.EXCEPTION


def test_a_second_death_is_not_mixed_with_the_first() -> None:
    first = built(failure(raised(lambda: int("x")), attempts=1))
    again = Message("s", {name.lower(): v for name, v in first.headers.items()}, first.body)

    second = built(failure("expired", reason=Reason.EXPIRED), again, stack=False)

    names = [name.lower() for name in second.headers]
    assert len(names) == len(set(names))
    assert "eventbus-dead-error-stack" not in names
    assert deadletter.read(second).reason is Reason.EXPIRED


def test_failures_of_one_kind_share_a_fingerprint() -> None:
    def fail(text: str) -> Failure:
        return failure(raised(lambda: int(text)))

    assert fail("a").fingerprint == fail("b").fingerprint


def test_other_failures_have_other_fingerprints() -> None:
    def elsewhere() -> object:
        return int("x")

    error = raised(elsewhere)
    prints = {
        failure(error).fingerprint,
        failure(raised(lambda: int("x"))).fingerprint,
        failure(raised(lambda: {}["x"])).fingerprint,
        failure(error, origin=Origin("mail", "copy", ORIGIN.subject)).fingerprint,
        failure(error, origin=Origin("mail", "send", "events.user.deleted")).fingerprint,
        failure("words").fingerprint,
    }

    assert len(prints) == 6


@pytest.mark.parametrize(
    ("header", "value"),
    [("reason", "boredom"), ("attempts", "many"), ("original-seq", ""), ("reason", None)],
)
def test_what_is_no_dead_letter_is_refused(header: str, value: str | None) -> None:
    letter = built(failure("x"))
    headers = {name.lower(): one for name, one in letter.headers.items()}
    del headers[f"eventbus-dead-{header}"]
    if value is not None:
        headers[f"eventbus-dead-{header}"] = value

    with pytest.raises(DecodeError, match="not a dead letter"):
        deadletter.read(Message("events-dlq.x", headers, b""))


def test_a_letter_whose_time_can_not_be_read_is_still_a_letter() -> None:
    letter = built(failure("x"))
    headers = {**letter.headers, "Eventbus-Dead-Failed-At": "0001-01-01T00:00:00+23:00"}

    assert deadletter.read(Message("s", headers, b"")).failed_at == datetime(
        1970, 1, 1, tzinfo=UTC
    )


def test_one_stored_event_has_one_letter_for_each_durable() -> None:
    first = deadletter.dead_letter_id("mail__send", delivery(deliveries=1))

    assert deadletter.dead_letter_id("mail__send", delivery(deliveries=5)) == first
    assert deadletter.dead_letter_id("mail__copy", delivery()) != first


def test_a_stream_that_was_made_anew_has_other_letters() -> None:
    one = FakeDelivery(MESSAGE, sequence=7, stored_at=NOW)
    other = FakeDelivery(MESSAGE, sequence=7, stored_at=NOW + timedelta(microseconds=1))

    assert deadletter.dead_letter_id("d", one) != deadletter.dead_letter_id("d", other)
