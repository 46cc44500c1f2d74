"""The options of an emit as its envelope, checked."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, cast

from eventbus import headers as h
from eventbus.correlation import Scope
from eventbus.duration import Duration, moment, seconds
from eventbus.envelope import NO_HEADERS, Envelope
from eventbus.errors import did_you_mean
from eventbus.event import Event
from eventbus.middleware.base import EmitOptions

__all__ = ("check_options", "due_of", "enveloped")

_SWITCHES: Final = ("immediate", "after_commit")


def enveloped(  # noqa: PLR0913 - what an emit has beside its options
    event: Event,
    options: EmitOptions,
    *,
    source: str,
    now: datetime,
    due: datetime | None = None,
    id: str | None = None,
    scope: Scope | None = None,
) -> Envelope:
    """Return the envelope of an event that is emitted with these options.

    Args:
        event: The event.
        options: Those of `eventbus.EventService.emit`.
        source: The service that emits it.
        now: When.
        due: Until when it waits; None for not at all.
        id: Its id where the options give none; one is made where None.
        scope: Where it is emitted; where this is called if None.

    Raises:
        DeclarationError, EncodeError, HeaderError, InvalidEventError: It can't be emitted.
        ValueError: A time or duration is none.
    """
    user_headers = _user_headers(event, options)
    given: Mapping[str, object] = options
    return Envelope.of(
        event,
        source=source,
        time=now,
        id=given.get("id", id),
        key=given.get("key"),
        correlation_id=given.get("correlation_id"),
        headers=h.check_user_headers(user_headers) if user_headers else NO_HEADERS,
        tags=given.get("tags", ()),
        due=due,
        expires=options.get("expires"),
        scope=scope,
    )


def due_of(delay: Duration | None, at: datetime | None, now: datetime) -> datetime | None:
    """Return until when an event waits; None for an event that doesn't.

    Raises:
        TypeError, ValueError: Both are given, or what is given is no time.
    """
    if delay is not None and at is not None:
        raise TypeError("it takes delay= or at=, not both")
    if delay is not None:
        return now + timedelta(seconds=seconds(delay))
    if at is None:
        return None
    if not isinstance(at, datetime):
        raise TypeError(f"at= is a datetime, not {at!r}; use delay= for a duration")
    return moment(at, now)


def _user_headers(event: Event, options: EmitOptions) -> Mapping[str, str]:
    """Return the event's metadata and the emit's headers, which win."""
    given = options.get("headers") or NO_HEADERS
    if not event.event_metadata:
        return given
    kept, names = dict(event.event_metadata), cast("Iterable[object]", given)
    for name in names:
        kept.pop(str(name).lower(), None)
    return {**kept, **given}


def check_options(options: EmitOptions) -> None:
    """Refuse an option that `emit` doesn't have, and what no option can be.

    Raises:
        TypeError: It has no such option, or not with this value; the message says what it has.
    """
    known = tuple(EmitOptions.__annotations__)
    for option, value in options.items():
        if option not in known:
            hint = did_you_mean(option, known)
            raise TypeError(f"emit() has no option {option!r} (it has {', '.join(known)}){hint}")
        if option in _SWITCHES and not isinstance(value, bool):
            raise TypeError(f"emit() takes {option}=True or False, not {value!r}")
        if option == "driver" and not isinstance(value, str | None):
            raise TypeError(f"emit() takes the name of a driver=, not {value!r}")
