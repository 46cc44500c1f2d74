"""The whole exception tree and the signals a listener may raise; nothing else.

::

    Exception
    ├─ EventBusError                      code "eventbus", not retryable
    │  ├─ ConfigurationError              found at start, never while running
    │  │  ├─ SettingsError                a setting is missing, wrong or contradicts another
    │  │  ├─ DeclarationError             an event or a listener is declared wrongly
    │  │  ├─ SubjectError                 a name or subject that NATS or we don't allow
    │  │  ├─ DuplicateSubscriptionError   two listeners of one service share a name
    │  │  ├─ TopologyError                a stream or durable differs from what is declared
    │  │  ├─ ServerNotFoundError          no nats-server binary to start
    │  │  ├─ ServerTooOldError            the server lacks what the bus needs
    │  │  └─ NoJetStreamError             the server or account has JetStream disabled
    │  ├─ SchemaError
    │  │  ├─ UnknownEventError            no event of that name or version is declared
    │  │  ├─ InvalidEventError            the payload doesn't fit the declared fields
    │  │  ├─ IncompatibleSchemaError      two classes claim one name and version
    │  │  ├─ UpcastError                  no way from the stored version to the wanted one
    │  │  └─ FixedEventError              a delayed event that its class lets nobody take back
    │  ├─ CodecError
    │  │  ├─ EncodeError                  an event can't become a message
    │  │  ├─ DecodeError                  a message isn't an event
    │  │  └─ HeaderError                  a header that must not or can't be sent
    │  ├─ DriverError                     retryable unless a subclass says otherwise
    │  │  ├─ NotConnectedError            there is no connection now
    │  │  ├─ NotAuthorizedError           refused credentials or permissions
    │  │  ├─ CertificateError             TLS failed: CA, certificate or its dates
    │  │  ├─ PublishError                 the server said no
    │  │  │  ├─ NoStreamError             no stream takes that subject
    │  │  │  ├─ EmitUnknown               no answer: it may or may not be stored
    │  │  │  ├─ BackpressureError         the stream is full of unread events
    │  │  │  ├─ PayloadTooLargeError      refused before the wire
    │  │  │  ├─ IdConflictError           another event is stored under that id
    │  │  │  └─ SequenceConflictError     something else is the last one on its subject
    │  │  ├─ NobodyAnswersError           nobody answers that query now
    │  │  ├─ RequestTimeoutError          no reply to a query in time
    │  │  ├─ SettleError                  ack, nak or term didn't reach the server
    │  │  └─ UnsupportedError             the driver lacks a feature that was asked for
    │  ├─ ServerStartError                an embedded nats-server didn't come up
    │  ├─ StoreError                      the database behind outbox, inbox or event store
    │  ├─ RequestFailedError             whoever answers a query raised
    │  ├─ ListenerTimeoutError            a listener ran longer than it may
    │  └─ GaveUpError                     a dead letter whose listener raised nothing
    └─ Signal                             control flow, outside the tree on purpose
       ├─ AlreadyHandled                  the inbox knows it: acknowledged, not run
       ├─ RetryLater(after=None)          try again, after a while
       ├─ Postpone(after)                 not now, and no attempt; for middleware
       ├─ Reject(reason)                  dead letter at once
       └─ Discard(reason)                 done with it, on purpose and counted

``code`` is stable and public: it is the log field, the metric label and ``error.type`` in traces.
Signals aren't under `EventBusError`, so that ``except EventBusError`` in a listener can't
swallow one.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from difflib import get_close_matches
from typing import ClassVar

__all__ = (
    "AlreadyHandled",
    "BackpressureError",
    "CertificateError",
    "CodecError",
    "ConfigurationError",
    "DeclarationError",
    "DecodeError",
    "Discard",
    "DriverError",
    "DuplicateSubscriptionError",
    "EmitUnknown",
    "EncodeError",
    "EventBusError",
    "FixedEventError",
    "GaveUpError",
    "HeaderError",
    "IdConflictError",
    "IncompatibleSchemaError",
    "InvalidEventError",
    "ListenerTimeoutError",
    "NoJetStreamError",
    "NoStreamError",
    "NobodyAnswersError",
    "NotAuthorizedError",
    "NotConnectedError",
    "PayloadTooLargeError",
    "Postpone",
    "PublishError",
    "Reject",
    "RequestFailedError",
    "RequestTimeoutError",
    "RetryLater",
    "SchemaError",
    "SequenceConflictError",
    "ServerNotFoundError",
    "ServerStartError",
    "ServerTooOldError",
    "SettingsError",
    "SettleError",
    "Signal",
    "StoreError",
    "SubjectError",
    "TopologyError",
    "UnknownEventError",
    "UnsupportedError",
    "UpcastError",
    "did_you_mean",
    "error_type",
)


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known word, or an empty string."""
    close = get_close_matches(wrong, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def _rebuilt(kind: type[Exception], args: tuple[object, ...], fields: dict[str, object]) -> object:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


class EventBusError(Exception):
    """Root of everything the bus raises as a fault."""

    code: ClassVar[str] = "eventbus"
    retryable: ClassVar[bool] = False

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the fields and not the constructor's call, which takes keywords."""
        return _rebuilt, (type(self), self.args, self.__dict__)


def error_type(error: BaseException) -> str:
    """Return what kind of error it is: the code of ours, the class's full name of others."""
    if isinstance(error, EventBusError):
        return error.code
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{module}{kind.__qualname__}"


class ConfigurationError(EventBusError):
    """Something is set up wrongly; found when the service starts."""

    code = "configuration"


class SettingsError(ConfigurationError):
    """A setting is missing, wrong, or contradicts another."""

    code = "configuration.settings"


class DeclarationError(ConfigurationError):
    """An event class or a listener is declared wrongly."""

    code = "configuration.declaration"


class SubjectError(ConfigurationError):
    """A name or subject that isn't allowed."""

    code = "configuration.subject"

    def __init__(self, *, value: str, problem: str) -> None:
        self.value = value
        self.problem = problem
        super().__init__(f"{value!r} {problem}")


class DuplicateSubscriptionError(ConfigurationError):
    """Two listeners of one service share a name, so they would share one durable."""

    code = "configuration.duplicate_subscription"

    def __init__(self, *, service: str, listener: str) -> None:
        self.service = service
        self.listener = listener
        super().__init__(
            f"service '{service}' has two listeners named '{listener}'; "
            "give one of them another name= in subscribe()"
        )


class TopologyError(ConfigurationError):
    """A stream or durable on the server differs from what is declared."""

    code = "configuration.topology"

    def __init__(self, *, thing: str, problem: str, remedy: str) -> None:
        self.thing = thing
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{thing}: {problem}; {remedy}")


class ServerNotFoundError(ConfigurationError):
    """No nats-server binary was found."""

    code = "configuration.server_not_found"


class ServerTooOldError(ConfigurationError):
    """The server is older than the bus can work with."""

    code = "configuration.server_too_old"

    def __init__(self, *, found: str, needed: str) -> None:
        self.found = found
        self.needed = needed
        super().__init__(
            f"nats-server {found} is too old, eventbus needs {needed} or newer; upgrade the server"
        )


class NoJetStreamError(ConfigurationError):
    """JetStream is disabled on the server or for the account."""

    code = "configuration.no_jetstream"

    def __init__(self, *, server: str) -> None:
        self.server = server
        super().__init__(
            f"JetStream isn't enabled on {server}; start nats-server with -js, add a jetstream "
            "block to its configuration, or enable JetStream for this account"
        )


class SchemaError(EventBusError):
    """An event and its declaration don't fit together."""

    code = "schema"


class UnknownEventError(SchemaError):
    """No event of that name (or that version of it) is declared."""

    code = "schema.unknown_event"

    def __init__(
        self, *, name: str, version: int | None = None, known: Sequence[str | int] = ()
    ) -> None:
        self.name = name
        self.version = version
        self.known = tuple(known)
        if version is None:
            hint = did_you_mean(name, (str(one) for one in known))
            message = f"no event '{name}' is declared{hint}"
            if not hint:
                message += "; declare a class for it in schemas/, or register the one you have"
        else:
            versions = ", ".join(str(one) for one in known) or "none"
            message = (
                f"no version {version} of event '{name}' is declared (known: {versions}); "
                "register it, or deploy the producer later"
            )
        super().__init__(message)


class InvalidEventError(SchemaError):
    """The payload doesn't fit the declared fields.

    ``problems`` holds (field path, message) pairs; values are left out on purpose,
    because payloads may hold personal data and errors go to logs. ``versions`` are the one it was
    emitted as and the one it was read as, where they differ.
    """

    code = "schema.invalid_event"

    def __init__(
        self,
        *,
        name: str,
        problems: Sequence[tuple[str, str]],
        versions: tuple[int, int] | None = None,
    ) -> None:
        self.name = name
        self.problems = tuple(problems)
        self.versions = versions
        listed = "; ".join(f"{where or 'payload'}: {what}" for where, what in self.problems)
        read = f" (version {versions[0]}, read as version {versions[1]})" if versions else ""
        super().__init__(f"invalid '{name}'{read}: {listed}")


class IncompatibleSchemaError(SchemaError):
    """Two different classes claim the same event name and version."""

    code = "schema.incompatible"


class UpcastError(SchemaError):
    """There is no way from the stored version to the wanted one."""

    code = "schema.upcast"


class FixedEventError(SchemaError):
    """A delayed event that may be neither taken back nor moved."""

    code = "schema.fixed_event"

    def __init__(self, *, name: str, id: str) -> None:
        self.name = name
        self.id = id
        super().__init__(
            f"'{name}' {id} waits for its time and can't be taken back or moved: its class says "
            "can_unqueue=False"
        )


class CodecError(EventBusError):
    """An event and its bytes don't convert."""

    code = "codec"


class EncodeError(CodecError):
    """An event can't become a message."""

    code = "codec.encode"


class DecodeError(CodecError):
    """A message isn't an event.

    Holds the subject and the size, never the whole body: it may be large, binary or private.
    """

    code = "codec.decode"

    def __init__(self, *, subject: str, problem: str, size: int = 0) -> None:
        self.subject = subject
        self.problem = problem
        self.size = size
        super().__init__(f"message on '{subject}' ({size} bytes) isn't an event: {problem}")


class HeaderError(CodecError):
    """A header that must not or can't be sent."""

    code = "codec.header"

    def __init__(self, *, header: str, problem: str) -> None:
        self.header = header
        self.problem = problem
        super().__init__(f"header {header!r} {problem}")


class DriverError(EventBusError):
    """The transport failed; another try may succeed."""

    code = "driver"
    retryable = True


class NotConnectedError(DriverError):
    """There is no connection to the server now."""

    code = "driver.not_connected"


class NotAuthorizedError(DriverError):
    """The server refused the credentials, or the permissions don't cover the operation."""

    code = "driver.not_authorized"
    retryable = False


class CertificateError(DriverError):
    """TLS failed: an unknown CA, a certificate that isn't valid (any more), a wrong host name."""

    code = "driver.certificate"
    retryable = False


class PublishError(DriverError):
    """The server refused the event: it isn't stored."""

    code = "driver.publish"


class NoStreamError(PublishError):
    """No stream takes that subject."""

    code = "driver.no_stream"


class EmitUnknown(PublishError):  # noqa: N818 - an outcome more than an error
    """No answer came in time: the event may or may not be stored.

    Emitting the same event object again can't store it twice within the duplicate window (P2).
    """

    code = "driver.emit_unknown"

    def __init__(self, *, name: str, id: str, after: float, tries: int) -> None:
        self.name = name
        self.id = id
        self.after = after
        self.tries = tries
        super().__init__(
            f"'{name}' {id} got no answer in {after:.1f} s ({tries} tries): it may or may not be "
            "stored; emit the same event object again, it can't be stored twice within the "
            "duplicate window"
        )


class BackpressureError(PublishError):
    """The stream is full of events that nobody has handled yet; this one isn't stored.

    ``held_by`` names the durables that hold the room, as far as they are known.
    """

    code = "driver.backpressure"

    def __init__(self, *, stream: str, problem: str, held_by: Sequence[str] = ()) -> None:
        self.stream = stream
        self.problem = problem
        self.held_by = tuple(held_by)
        holders = f" held by {', '.join(self.held_by)};" if self.held_by else ""
        super().__init__(
            f"stream {stream} has no room ({problem});{holders} "
            "let its listeners catch up, or raise max_bytes"
        )


class PayloadTooLargeError(PublishError):
    """The message is over the server's limit; nothing was sent."""

    code = "driver.payload_too_large"
    retryable = False

    def __init__(self, *, name: str, size: int, limit: int) -> None:
        self.name = name
        self.size = size
        self.limit = limit
        super().__init__(
            f"'{name}' is {size} bytes with its headers, the limit is {limit}; "
            "store the large part elsewhere and emit a reference to it"
        )


class IdConflictError(PublishError):
    """Another event is stored under that id; this one isn't."""

    code = "driver.id_conflict"
    retryable = False

    def __init__(self, *, name: str, id: str, stored: str) -> None:
        self.name = name
        self.id = id
        self.stored = stored
        super().__init__(f"'{name}' wasn't stored: id {id!r} is taken by {stored}; use another id")


class SequenceConflictError(PublishError):
    """Something else is the last one on its subject than was expected; this one isn't stored.

    Unless the answer to an earlier try was lost: then it may be this very message.
    """

    code = "driver.sequence_conflict"
    retryable = False

    def __init__(self, *, name: str, subject: str) -> None:
        self.name = name
        self.subject = subject
        super().__init__(
            f"'{name}' wasn't stored: something else is the last one on '{subject}'; "
            "read it, and decide again"
        )


class NobodyAnswersError(DriverError):
    """Nobody answers a query now; nothing was handled."""

    code = "driver.nobody_answers"

    def __init__(self, *, subject: str) -> None:
        self.subject = subject
        super().__init__(
            f"nobody answers on '{subject}' now; start the service that has "
            "@events.answer for this query, or ask again later"
        )


class RequestTimeoutError(DriverError):
    """No reply to a query in time; it may have been handled."""

    code = "driver.request_timeout"

    def __init__(self, *, subject: str, after: float) -> None:
        self.subject = subject
        self.after = after
        super().__init__(
            f"no reply on '{subject}' within {after:g} s; it may have been handled, so ask again "
            "only what may be asked twice"
        )


class SettleError(DriverError):
    """Ack, nak or term didn't reach the server; the event will be delivered again."""

    code = "driver.settle"


class UnsupportedError(DriverError):
    """The driver lacks a feature that was asked for."""

    code = "driver.unsupported"
    retryable = False

    def __init__(self, *, driver: str, feature: str, remedy: str) -> None:
        self.driver = driver
        self.feature = feature
        super().__init__(f"driver '{driver}' has no {feature}; {remedy}")


class ServerStartError(EventBusError):
    """An embedded nats-server didn't come up; the message ends with what it logged."""

    code = "embedded.start"


class StoreError(EventBusError):
    """The database behind outbox, inbox or event store failed."""

    code = "store"
    retryable = True


class RequestFailedError(EventBusError):
    """Whoever answers a query raised; ``error`` is what kind of error, ``problem`` its message."""

    code = "request_failed"

    def __init__(self, *, name: str, error: str, problem: str) -> None:
        self.name = name
        self.error = error
        self.problem = problem
        super().__init__(f"'{name}' couldn't be answered: {error}: {problem}")


class ListenerTimeoutError(EventBusError):
    """A listener ran longer than it may and was cancelled."""

    code = "listener.timeout"
    retryable = True

    def __init__(self, *, listener: str, limit: float) -> None:
        self.listener = listener
        self.limit = limit
        super().__init__(f"listener '{listener}' ran longer than {limit:g} s and was cancelled")


class GaveUpError(EventBusError):
    """An event became a dead letter without its listener having raised anything.

    It expired before it was handled, or its runs ended without an outcome. Handed to a listener's
    ``failed``; nobody raises it.
    """

    code = "listener.gave_up"

    def __init__(self, *, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"the event is a dead letter ({reason}): {detail}")


class Signal(Exception):  # noqa: N818 - control flow, not an error
    """Raised by a listener to choose the outcome."""

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the fields: a listener may raise it in a process of a pool."""
        return _rebuilt, (type(self), self.args, self.__dict__)


class AlreadyHandled(Signal):
    """The listener has handled this event before: acknowledged, with the outcome ``duplicate``."""


class RetryLater(Signal):
    """Try the event again, after ``after`` (seconds, timedelta or ``"5m"``).

    Without ``after`` the listener's `Retry` decides. It counts as an attempt.
    """

    def __init__(self, after: float | timedelta | str | None = None) -> None:
        self.after = after
        super().__init__("try again later" if after is None else f"try again after {after}")


class Postpone(Signal):
    """Give the event back for ``after`` (seconds, timedelta or ``"5m"``), without an attempt.

    For middleware that keeps a limit: a listener that always raises it keeps its event for ever.
    With ``pause`` the process pulls no more events of this listener meanwhile.
    """

    def __init__(self, after: float | timedelta | str, *, pause: bool = False) -> None:
        self.after = after
        self.pause = pause
        super().__init__(f"not before {after}")


class Reject(Signal):
    """Make the event a dead letter at once, whatever attempts are left."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Discard(Signal):
    """Drop the event on purpose: it is acknowledged, counted and logged, not kept."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)
