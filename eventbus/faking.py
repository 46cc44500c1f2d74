"""Fakes: emits that are recorded instead of published, and what a test asserts of them."""

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Generic, Self, TypeAlias, TypeVar, cast, overload

from eventbus.drivers.receipt import Receipt, Scheduled
from eventbus.envelope import Envelope
from eventbus.enveloping import check_options, due_of, enveloped
from eventbus.errors import did_you_mean
from eventbus.event import Event, spec_of
from eventbus.middleware.base import EmitOptions
from eventbus.stores.base import open_transaction
from eventbus.subject import check_pattern, matches
from eventbus.subscription import Subscription

__all__ = ("Fake", "Recorded", "Where", "active_fakes", "current_fake", "keeping_fake")

EventT = TypeVar("EventT", bound=Event)
_EventT_co = TypeVar("_EventT_co", bound=Event, covariant=True)
Where: TypeAlias = Callable[[EventT], bool] | Mapping[str, object] | None
"""Which events are meant: what a function says of one, or the fields it must have."""

DRIVER = "fake"
NO_FIELDS: Mapping[str, object] = MappingProxyType({})
_ACTIVE: ContextVar[tuple["Fake", ...]] = ContextVar("eventbus_fakes", default=())


@dataclass(frozen=True, slots=True)
class Recorded(Generic[_EventT_co]):
    """An emit that a fake kept."""

    event: _EventT_co
    id: str
    name: str
    service: str
    key: str | None
    correlation_id: str
    causation_id: str | None
    tags: tuple[str, ...]
    headers: Mapping[str, str]
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    """What ``emit`` was called with beside the event."""
    due: datetime | None = None
    """Until when it would wait; None where it wasn't delayed."""
    is_cancelled: bool = False
    """It was taken back."""


class Fake:
    """Records emits instead of publishing them, from its creation until `restore`.

    A context manager: at the end of its block it restores. It holds for the code that this task
    calls and for the tasks that it starts, and for nobody else, so that tests side by side don't
    see each other's. Of several the one made last that takes an event gets it; what none takes is
    emitted for real.

    Emits are checked as ever: an event that isn't valid still raises. Nothing has to be started.

    Args:
        service: The service whose emits it takes; None for those of every service.
        only: Take these events alone: classes, names or patterns. All where there are none.
        except_: Leave these to be emitted for real.
        listening: What tells the service's listeners.
    """

    def __init__(
        self,
        service: str | None = None,
        *,
        only: Iterable[type[Event] | str] = (),
        except_: Iterable[type[Event] | str] = (),
        listening: Callable[[], tuple[Subscription, ...]] | None = None,
    ) -> None:
        self._service = service
        self._only = tuple(_pattern(one) for one in only)
        self._except = tuple(_pattern(one) for one in except_)
        self._listening = listening
        self._recorded: list[Recorded[Event]] = []
        _ACTIVE.set((*_ACTIVE.get(), self))

    def __enter__(self) -> Self:
        """Return it; it works since it was made."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Restore."""
        self.restore()

    def restore(self) -> None:
        """Let emits be published again; what was recorded can still be asserted."""
        _ACTIVE.set(tuple(one for one in _ACTIVE.get() if one is not self))

    def clear(self) -> None:
        """Forget what was recorded."""
        self._recorded.clear()

    def takes(self, service: str, name: str) -> bool:
        """Tell whether it records events of this name that this service emits."""
        return (
            self._service in (None, service)
            and (not self._only or any(matches(one, name) for one in self._only))
            and not any(matches(one, name) for one in self._except)
        )

    def record(
        self, event: Event, options: EmitOptions, *, service: str, time: datetime
    ) -> Receipt:
        """Keep an emit, and return a receipt for it: of the driver ``fake``, in no stream.

        In a transaction it is kept once that commits, and never where it rolls back.

        Raises:
            TypeError, DeclarationError, EncodeError, HeaderError, InvalidEventError: It couldn't
                be emitted for real either.
        """
        check_options(options)
        due = due_of(options.get("delay"), options.get("at"), time)
        envelope = enveloped(event, options, source=service, now=time, due=due)
        transaction = None if options.get("immediate") else open_transaction()
        if transaction is None:
            self._keep(envelope, options)
        else:
            transaction.defer(partial(self._committed, envelope, options))
        waits = None if due is None else Scheduled(envelope.id, service, due, DRIVER)
        number = len(self._recorded)
        return Receipt(envelope.id, stream="", sequence=number, driver=DRIVER, scheduled=waits)

    async def _committed(self, envelope: Envelope, options: EmitOptions) -> None:
        self._keep(envelope, options)

    def _keep(self, envelope: Envelope, options: EmitOptions) -> None:
        self._recorded.append(
            Recorded(
                event=envelope.event,
                id=envelope.id,
                name=envelope.name,
                service=envelope.source,
                key=envelope.key,
                correlation_id=envelope.correlation_id,
                causation_id=envelope.causation_id,
                tags=envelope.tags,
                headers=envelope.headers,
                options=dict(options),
                due=envelope.due,
            )
        )

    def cancel(self, id: str) -> bool:
        """Note that a delayed event is taken back; False where it kept none of that id."""
        return self._change(id, is_cancelled=True) is not None

    def reschedule(self, id: str, due: datetime) -> Scheduled | None:
        """Note that a delayed event comes at another time; None for one that was taken back."""
        found = self._change(id, due=due)
        return None if found is None else Scheduled(id, found.service, due, DRIVER)

    def keeps(self, id: str) -> bool:
        """Tell whether it kept a delayed event of that id."""
        return any(one.id == id and one.due is not None for one in self._recorded)

    def _change(
        self, id: str, *, due: datetime | None = None, is_cancelled: bool = False
    ) -> Recorded[Event] | None:
        for index, one in enumerate(self._recorded):
            if one.id == id and one.due is not None and (is_cancelled or not one.is_cancelled):
                changed = replace(one, due=due or one.due, is_cancelled=is_cancelled)
                self._recorded[index] = changed
                return changed
        return None

    @overload
    def emitted(
        self, event: type[EventT], *, where: Where[EventT] = None, tag: str | None = None
    ) -> tuple[Recorded[EventT], ...]: ...
    @overload
    def emitted(
        self, event: str | None = None, *, where: Where[Event] = None, tag: str | None = None
    ) -> tuple[Recorded[Event], ...]: ...
    def emitted(
        self,
        event: type[Event] | str | None = None,
        *,
        where: Where[EventT] = None,
        tag: str | None = None,
    ) -> tuple[Recorded[Event], ...]:
        """Return what was recorded, in its order: of a class, a name or a pattern, or all."""
        return self._found(event, where, tag)

    def assert_emitted(
        self,
        event: type[EventT] | str,
        *,
        where: Where[EventT] = None,
        times: int | None = None,
        tag: str | None = None,
    ) -> None:
        """Fail unless such an event was emitted; with ``times`` exactly so often.

        Raises:
            AssertionError: It says what was emitted instead, and how that differs.
        """
        __tracebackhide__ = True
        found = self._found(event, where, tag)
        if (times is None and found) or len(found) == times:
            return
        wanted = "" if times is None else f" {_times(times)}"
        raise AssertionError(
            f"expected {_said(event, where, tag)} to be emitted{wanted}, "
            f"it was {_times(len(found)) if found else 'not'}{self._told(event, where)}"
        )

    def assert_not_emitted(
        self,
        event: type[EventT] | str,
        *,
        where: Where[EventT] = None,
        tag: str | None = None,
    ) -> None:
        """Fail where such an event was emitted.

        Raises:
            AssertionError: It lists them.
        """
        __tracebackhide__ = True
        found = self._found(event, where, tag)
        if found:
            raise AssertionError(
                f"expected {_said(event, where, tag)} not to be emitted, "
                f"it was {_times(len(found))}{_listed(found)}"
            )

    def assert_nothing_emitted(self) -> None:
        """Fail where any event was emitted.

        Raises:
            AssertionError: It lists them.
        """
        __tracebackhide__ = True
        if self._recorded:
            raise AssertionError(f"expected no event to be emitted{_listed(self._recorded)}")

    def assert_listening(
        self, event: type[Event] | str, listener: Callable[..., object] | str | None = None
    ) -> None:
        """Fail unless a listener, or this one, of the service takes an event.

        Args:
            event: The class, or the name.
            listener: Its function, or its name; None for any.

        Raises:
            TypeError: The fake belongs to no service; make it with ``events.fake()``.
            AssertionError: It says which listeners take the event, and what this one takes.
        """
        __tracebackhide__ = True
        if self._listening is None:
            raise TypeError("this fake is that of every service; ask that of one: events.fake()")
        name = event if isinstance(event, str) else spec_of(event).name
        wanted = listener if isinstance(listener, str) else getattr(listener, "__name__", None)
        declared = self._listening()
        takers = [one.listener for one in declared if any(matches(p, name) for p in one.events)]
        if takers if wanted is None else wanted in takers:
            return
        who = "a listener" if wanted is None else f"listener '{wanted}'"
        takes = next((one.events for one in declared if one.listener == wanted), None)
        own = "" if takes is None else f"; it takes {', '.join(takes)}"
        hint = did_you_mean(wanted or "", [one.listener for one in declared]) if not takes else ""
        others = ", ".join(takers) or "nobody"
        raise AssertionError(
            f"expected {who} of '{self._service}' for {name}{own}; {others} takes it{hint}"
        )

    def _found(
        self, event: type[Event] | str | None, where: Where[EventT], tag: str | None
    ) -> tuple[Recorded[Event], ...]:
        return tuple(
            one
            for one in self._recorded
            if _is_named(event, one) and (tag is None or tag in one.tags) and _fits(where, one)
        )

    def _told(self, event: type[Event] | str, where: Where[EventT]) -> str:
        """Return those of the name with how they differ, else everything."""
        same = self._found(event, None, None)
        if not self._recorded:
            return "; nothing was emitted"
        fields = where if where is not None and not callable(where) else NO_FIELDS
        return _listed(same or self._recorded, fields)


def current_fake(service: str, event: type[Event]) -> Fake | None:
    """Return the fake that takes an event of this class and service here; None to emit it."""
    for one in reversed(_ACTIVE.get()):
        if one.takes(service, spec_of(event).name):
            return one
    return None


def keeping_fake(scheduled: Scheduled | str | None) -> tuple[Fake | None, str]:
    """Return the fake that kept a delayed event, and the event's id."""
    id = scheduled.id if isinstance(scheduled, Scheduled) else scheduled or ""
    return next((one for one in _ACTIVE.get() if one.keeps(id)), None), id


def active_fakes() -> tuple[Fake, ...]:
    """Return the fakes that hold here, the one made last at the end."""
    return _ACTIVE.get()


def _pattern(event: type[Event] | str) -> str:
    return check_pattern(event) if isinstance(event, str) else spec_of(event).name


def _is_named(event: type[Event] | str | None, one: Recorded[Event]) -> bool:
    if event is None:
        return True
    if isinstance(event, str):
        return matches(check_pattern(event), one.name)
    return isinstance(one.event, event)


def _fits(where: Where[EventT], one: Recorded[Event]) -> bool:
    if where is None:
        return True
    if callable(where):
        return where(cast("EventT", one.event))
    return not _differences(where, one)


def _differences(where: Mapping[str, object], one: Recorded[Event]) -> list[str]:
    return [
        f"{name} is {_value(one.event, name)}, not {wanted!r}"
        for name, wanted in where.items()
        if not hasattr(one.event, name) or getattr(one.event, name) != wanted
    ]


def _value(event: Event, name: str) -> str:
    return repr(getattr(event, name)) if hasattr(event, name) else "no field"


def _said(event: type[Event] | str, where: Where[EventT], tag: str | None) -> str:
    name = event if isinstance(event, str) else event.__name__
    tagged = "" if tag is None else f" tagged '{tag}'"
    if where is None:
        return name + tagged
    if callable(where):
        return f"{name}{tagged} that fits {getattr(where, '__name__', where)}"
    return f"{name}{tagged} with {', '.join(f'{one}={want!r}' for one, want in where.items())}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _listed(recorded: Iterable[Recorded[Event]], where: Mapping[str, object] = NO_FIELDS) -> str:
    lines = [_line(number, one, where) for number, one in enumerate(recorded, 1)]
    return "; emitted:\n" + "\n".join(lines)


def _line(number: int, one: Recorded[Event], where: Mapping[str, object]) -> str:
    differs = "".join(f"\n       {each}" for each in _differences(where, one))
    return f"  {number}. {one.name} {one.event.model_dump_json()}{differs}"
