"""`Envelope`, the frozen record of an event and all that travels with it; `Message`, its bytes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final, cast

from eventbus.correlation import NO_TRACE, Scope, current_scope
from eventbus.duration import Duration, moment
from eventbus.errors import InvalidEventError
from eventbus.event import Event, EventSpec, spec_of, tag_problems
from eventbus.headers import is_text
from eventbus.ids import is_id, uuid7
from eventbus.record import quick
from eventbus.template import template_of

__all__ = ("NO_HEADERS", "Envelope", "Message")

NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


@quick
@dataclass(frozen=True, slots=True)
class Message:
    """Subject, headers and bytes: what a driver carries, without knowing what it means."""

    subject: str
    headers: Mapping[str, str]
    """By lower-case name; values are printable ASCII."""
    body: bytes
    id: str | None = None
    """What the driver deduplicates by; None for no deduplication."""


@quick
@dataclass(frozen=True, slots=True)
class Envelope:
    """An event and its metadata."""

    event: Event
    body: bytes
    """The payload as JSON, as it is or was on the wire."""
    id: str
    name: str
    version: int
    time: datetime
    """When it was emitted, in UTC."""
    source: str
    """The service that emitted it."""
    key: str | None
    correlation_id: str
    causation_id: str | None
    tags: tuple[str, ...] = ()
    kind: str = "event"
    expires: datetime | None = None
    """After this a listener need not handle it any more; None for never."""
    due: datetime | None = None
    """When it is handed to its listeners, where it was delayed; None for at once."""
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)
    """The user's own, by lower-case name."""
    trace: Mapping[str, str] = field(default_factory=lambda: NO_TRACE)
    """W3C ``traceparent``, ``tracestate`` and ``baggage``, as they are."""
    tick: str = ""
    """Of a recurring event that is emitted: what it is a tick of."""

    @classmethod
    def plain(cls, event: Event, source: str, time: datetime, scope: Scope) -> "Envelope":
        """Return the envelope of an event that is emitted as it is; otherwise as `of`.

        Its template says whether it can be.
        """
        template = template_of(event)
        name, key = template.name, template.key
        if key is not None:
            found = template.key_of(event)
            if isinstance(found, str) and found.isascii():
                key = found
            else:
                key = _key(event, spec_of(event), found)
        body = event.event_body()
        id = uuid7() if scope.handled is None else scope.handled.next_id(name, key, body)
        return Envelope(  # by position, which is quicker; cls() would be slow where compiled
            event,
            body,
            id,
            name,
            template.version,
            time,
            source,
            key,
            scope.correlation_id or id,
            scope.causation_id,
            template.tags,
            template.kind,
            None if template.expires is None else moment(template.expires, time),
            None,
            NO_HEADERS,
            scope.trace,
            "",
        )

    @classmethod
    def of(  # noqa: PLR0913 - one for each thing an emitter may say
        cls,
        event: Event,
        *,
        source: str,
        time: datetime,
        id: object = None,
        key: object = None,
        correlation_id: object = None,
        headers: Mapping[str, str] = NO_HEADERS,
        tags: object = (),
        due: datetime | None = None,
        expires: Duration | datetime | None = None,
        scope: Scope | None = None,
    ) -> "Envelope":
        """Return the envelope of an event that is emitted now, in a scope.

        What isn't given is taken from the event (key), from the scope (correlation, cause,
        trace), or made (id; the correlation id is the id where nothing caused the event). What is
        an object here comes from users as it is, and must be a string, tags a tuple of them.

        Raises:
            DeclarationError: The event's class has no name.
            EncodeError: A field holds what JSON can't.
            InvalidEventError: ``id``, ``key``, ``correlation_id`` or ``tags`` can't be carried.
            ValueError: ``expires`` is no time.
        """
        spec = event.event_spec or spec_of(event)
        scope = current_scope() if scope is None else scope
        kept_by = _key(event, spec, key)
        body = event.event_body()
        own = scope.id_for(spec.name, kept_by, body) if id is None else _id(spec.name, "id", id)
        shared = scope.correlation_id or own
        if correlation_id is not None:
            shared = _id(spec.name, "correlation_id", correlation_id)
        expires = spec.expires if expires is None else expires
        return Envelope(  # by position, which is quicker; cls() would be slow where compiled
            event,
            body,
            own,
            spec.name,
            spec.version,
            time,
            source,
            kept_by,
            shared,
            scope.causation_id,
            _tags(spec, tags) if tags else spec.tags,
            spec.kind,
            expires=None if expires is None else moment(expires, due or time),
            due=due,
            headers=headers,
            trace=scope.trace,
        )

    def traced(self, trace: Mapping[str, str]) -> "Envelope":
        """Return it with another trace; quicker than `dataclasses.replace`."""
        return Envelope(
            self.event,
            self.body,
            self.id,
            self.name,
            self.version,
            self.time,
            self.source,
            self.key,
            self.correlation_id,
            self.causation_id,
            self.tags,
            self.kind,
            self.expires,
            self.due,
            self.headers,
            trace,
            self.tick,
        )


def _key(event: Event, spec: EventSpec, key: object) -> str | None:
    if key is None and spec.key is not None:
        key = template_of(event).key_of(event)
    if key is None:
        if spec.kind == "state":
            problem = "a state event is kept by its key, which is missing"
            raise InvalidEventError(name=spec.name, problems=[("key", problem)])
        return None
    if not isinstance(key, str) or not (key.isascii() or is_text(key)):
        problem = "must be a string of valid Unicode"
        raise InvalidEventError(name=spec.name, problems=[("key", problem)])
    return key


def _tags(spec: EventSpec, more: object) -> tuple[str, ...]:
    """Return the tags of the class and those of the emit, each once."""
    given = cast("tuple[object, ...]", more) if isinstance(more, tuple) else (None,)
    strings = [one for one in given if isinstance(one, str)]
    problems = [] if len(strings) == len(given) else ["must be a tuple of strings"]
    if problems := problems or [*tag_problems(strings)]:
        raise InvalidEventError(name=spec.name, problems=[("tags", one) for one in problems])
    return (*spec.tags, *(one for one in dict.fromkeys(strings) if one not in spec.tags))


def _id(name: str, field: str, value: object) -> str:
    if not isinstance(value, str) or not is_id(value):
        problem = "must be a string of 1 to 128 printable ASCII characters without spaces"
        raise InvalidEventError(name=name, problems=[(field, problem)])
    return value
