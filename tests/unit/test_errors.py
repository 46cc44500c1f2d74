"""The exception tree: codes, retryability, messages, and that it survives a process border."""

import copy
import pickle
from collections.abc import Iterator

import pytest

from eventbus import errors
from eventbus.errors import (
    BackpressureError,
    CertificateError,
    ConfigurationError,
    DecodeError,
    Discard,
    DriverError,
    EmitUnknown,
    EventBusError,
    IdConflictError,
    InvalidEventError,
    ListenerTimeoutError,
    NotAuthorizedError,
    NotConnectedError,
    PayloadTooLargeError,
    PublishError,
    Reject,
    RetryLater,
    SchemaError,
    SequenceConflictError,
    ServerTooOldError,
    Signal,
    SubjectError,
    TopologyError,
    UnknownEventError,
    UnsupportedError,
    did_you_mean,
    error_type,
)

HELPERS = {"did_you_mean", "error_type"}
EXAMPLES: dict[str, Exception] = {
    "subject": SubjectError(value="user.*", problem="isn't an event name"),
    "duplicate": errors.DuplicateSubscriptionError(service="mail", listener="send"),
    "topology": TopologyError(
        thing="stream EVENTS", problem="max_age is 1 d", remedy="set max_age"
    ),
    "too_old": ServerTooOldError(found="2.9.0", needed="2.12"),
    "no_jetstream": errors.NoJetStreamError(server="nats://127.0.0.1:4222"),
    "unknown_name": UnknownEventError(name="user.creatd", known=["user.created"]),
    "unknown_version": UnknownEventError(name="user.created", version=3, known=[1, 2]),
    "invalid": InvalidEventError(
        name="user.created", problems=[("email", "Field required"), ("", "odd")]
    ),
    "decode": DecodeError(subject="events.user.created", problem="no ce-id", size=12),
    "header": errors.HeaderError(header="ce-id", problem="is reserved"),
    "emit_unknown": EmitUnknown(name="user.created", id="1", after=15.04, tries=7),
    "backpressure": BackpressureError(
        stream="EVENTS", problem="maximum bytes exceeded", held_by=["mail__send"]
    ),
    "too_large": PayloadTooLargeError(name="user.created", size=2_000_000, limit=1_044_480),
    "id_conflict": IdConflictError(
        name="user.created", id="1", stored="'user.updated' at EVENTS:7"
    ),
    "unsupported": UnsupportedError(driver="sync", feature="delay", remedy="use jetstream"),
    "timeout": ListenerTimeoutError(listener="send", limit=2.5),
    "not_connected": NotConnectedError("no connection"),
    "reject": Reject("no such order"),
    "discard": Discard("a test account"),
    "retry_later": RetryLater("5m"),
}


def tree(root: type[Exception] = EventBusError) -> Iterator[type[EventBusError]]:
    """Yield the errors of the module; not those that others derive."""
    assert issubclass(root, EventBusError)
    if root.__module__ == errors.__name__:
        yield root
    for child in root.__subclasses__():
        yield from tree(child)


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [error.code for error in tree()]

    assert sorted(codes) == sorted(set(codes))
    assert all("code" in vars(error) for error in tree())


def test_a_code_begins_with_that_of_its_family() -> None:
    families = {ConfigurationError, SchemaError, errors.CodecError, DriverError}

    for family in families:
        for error in tree(family):
            assert error.code.split(".")[0] == family.code


SIGNALS = {"AlreadyHandled", "Signal", "Reject", "Discard", "RetryLater", "Postpone"}


def test_the_module_exports_every_error_it_defines() -> None:
    defined = {error.__name__ for error in tree()} | SIGNALS

    assert defined | HELPERS == set(errors.__all__)


def test_the_tree_in_the_docstring_names_every_error() -> None:
    drawn = errors.__doc__ or ""

    missing = {name for name in errors.__all__ if name not in drawn}
    assert missing == HELPERS


def test_trying_again_helps_against_the_transport_but_not_against_refusals() -> None:
    final = {NotAuthorizedError, CertificateError, PayloadTooLargeError, IdConflictError}

    assert {error for error in tree(DriverError) if not error.retryable} == {
        *final,
        SequenceConflictError,
        UnsupportedError,
    }
    assert not any(error.retryable for error in tree(ConfigurationError))
    assert not any(error.retryable for error in tree(SchemaError))
    assert not any(error.retryable for error in tree(errors.CodecError))
    assert ListenerTimeoutError.retryable
    assert errors.StoreError.retryable


def test_catching_bus_errors_in_a_listener_lets_its_signals_through() -> None:
    for signal in (RetryLater(), Reject("x"), Discard("x")):
        assert isinstance(signal, Signal)
        assert not isinstance(signal, EventBusError)
        assert isinstance(signal, Exception)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_error_comes_back_from_another_process_as_it_was(example: str) -> None:
    error = EXAMPLES[example]

    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert twin.args == error.args
        assert vars(twin) == vars(error)


@pytest.mark.parametrize(
    ("example", "words"),
    [
        ("subject", ["'user.*'", "isn't an event name"]),
        ("duplicate", ["'mail'", "'send'", "name="]),
        ("topology", ["stream EVENTS", "max_age is 1 d", "set max_age"]),
        ("too_old", ["2.9.0", "2.12", "upgrade"]),
        ("no_jetstream", ["nats://127.0.0.1:4222", "-js"]),
        ("unknown_name", ["'user.creatd'", "did you mean 'user.created'?"]),
        ("unknown_version", ["version 3", "1, 2", "register it"]),
        ("invalid", ["'user.created'", "email: Field required", "payload: odd"]),
        ("decode", ["events.user.created", "12 bytes", "no ce-id"]),
        ("emit_unknown", ["may or may not be stored", "15.0 s", "7 tries", "same event object"]),
        ("backpressure", ["EVENTS", "mail__send", "max_bytes"]),
        ("too_large", ["2000000", "1044480", "reference"]),
        ("id_conflict", ["'1'", "EVENTS:7", "another id"]),
        ("timeout", ["'send'", "2.5 s"]),
    ],
)
def test_a_message_says_what_happened_to_which_thing_and_what_to_do(
    example: str, words: list[str]
) -> None:
    message = str(EXAMPLES[example])

    assert [word for word in words if word not in message] == []


def test_an_unknown_event_without_a_neighbour_says_where_to_declare_it() -> None:
    error = UnknownEventError(name="order.placed", known=["user.created"])

    assert str(error) == (
        "no event 'order.placed' is declared; declare a class for it in schemas/, or register "
        "the one you have"
    )


def test_an_invalid_event_keeps_its_problems_as_pairs() -> None:
    error = InvalidEventError(name="user.created", problems=[("email", "Field required")])

    assert error.problems == (("email", "Field required"),)


def test_a_publish_without_an_answer_is_a_publish_error() -> None:
    assert issubclass(EmitUnknown, PublishError)
    assert EmitUnknown.retryable


def test_a_hint_is_given_only_for_what_is_close() -> None:
    known = ["user.created", "user.updated"]

    assert did_you_mean("user.craeted", known) == "; did you mean 'user.created'?"
    assert did_you_mean("payment.failed", known) == ""
    assert did_you_mean("anything", []) == ""


def test_a_kind_of_error_is_our_code_or_the_full_name_of_the_class() -> None:
    class OrderError(Exception):
        pass

    here = "test_a_kind_of_error_is_our_code_or_the_full_name_of_the_class.<locals>"

    assert error_type(NotConnectedError("x")) == "driver.not_connected"
    assert error_type(KeyError("x")) == "KeyError"
    assert error_type(OrderError()) == f"{__name__}.{here}.OrderError"
