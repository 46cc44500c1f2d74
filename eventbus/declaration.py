"""Makes a `Subscription` of a listener and its options, each checked when it is declared."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import cast
from uuid import uuid4

from eventbus.batch import Batch
from eventbus.drivers.base import Start
from eventbus.duration import Duration
from eventbus.errors import DeclarationError, SubjectError, did_you_mean
from eventbus.event import Event, UnknownEvent
from eventbus.headers import render_time
from eventbus.kinds import StateDeleted
from eventbus.options import around, at_least, delay_of, duration_of, mode_of, patience_of
from eventbus.retry import Retry
from eventbus.signature import (
    annotations_of,
    any_event,
    batch_handler_of,
    event_classes,
    function_name,
    handler_of,
    is_async,
    items_of,
    one_by_one,
)
from eventbus.subject import check_name, check_pattern, without_covered
from eventbus.subscribing import BatchOptions, ListenerOptions
from eventbus.subscription import (
    DEFAULT_CONCURRENCY,
    DEFAULT_TIMEOUT,
    EventT,
    FailedHook,
    Inbox,
    OnFailure,
    Subscription,
)

__all__ = ("check_replay", "replayed_from", "subscription")

MIN_ACK_WAIT = 1.0
LAST_SEQUENCE = 2**64 - 1
"""The server reads sequences as 64 bits."""


def subscription(
    service: str,
    target: type[Event] | str,
    listener: Callable[..., Awaitable[object]],
    options: ListenerOptions[EventT],
) -> Subscription:
    """Return the record of a listener for an event class, a name or a pattern.

    Raises:
        DeclarationError: The listener isn't async, takes other parameters or another event, or an
            option is unknown or makes no sense.
        SubjectError: The name or pattern isn't valid.
    """
    _check_options(options)
    name = _name(listener, options)
    annotations = annotations_of(listener)
    batch = _batch(name, options, annotations)
    if batch is not None and annotations:
        annotations = (items_of(annotations[0]), *annotations[1:])
    annotated = event_classes(annotations[0]) if annotations else ()
    if isinstance(target, str):
        events: tuple[str, ...] = without_covered([check_pattern(target)])
        accepts = annotated or any_event(name, annotations[:1])
    else:
        events, accepts = _named(target), (target,)
        if annotated and not issubclass(target, annotated):
            takes = " | ".join(one.__name__ for one in annotated)
            raise DeclarationError(
                f"listener '{name}' takes {takes}, but is subscribed to {target.__name__}"
            )
        if StateDeleted in annotated:
            accepts = (*accepts, StateDeleted)
    options = _with_defaults(accepts, options)
    many = None if batch is None else batch_handler_of(listener, name, annotations)
    layers, breaker = around(name, options)
    patience = patience_of(name, options)
    return Subscription(
        service=service,
        listener=name,
        events=events,
        accepts=accepts,
        handler=handler_of(listener, name, annotations) if many is None else one_by_one(many),
        takes_context=many is not None or len(annotations) > 1,
        retry=_retry(name, options.get("retry")),
        tries=patience.tries,
        backoff=patience.backoff,
        retry_for=patience.retry_for,
        stops=patience.stops,
        delay=delay_of(name, options),
        concurrency=at_least(
            name,
            "concurrency",
            options.get("concurrency", DEFAULT_CONCURRENCY if batch is None else 1),
        ),
        timeout=_timeout(name, options.get("timeout", DEFAULT_TIMEOUT)),
        queue=options.get("queue"),
        connection=options.get("connection"),
        after_commit=options.get("after_commit", False),
        start=_start(name, options.get("start", "new")),
        middleware=layers,
        ack_wait=max(MIN_ACK_WAIT, duration_of(name, "ack_wait", options.get("ack_wait", 30.0))),
        failed=_failed(name, options.get("failed")),
        breaker=breaker,
        ordered=_ordered(name, options),
        on_failure=_on_failure(name, options),
        inbox=_inbox(name, options),
        atomic=_atomic(name, options),
        mode=mode_of(name, options),
        batch=batch,
        batch_handler=many,
        undeclared=bool(annotations) and annotations[0] is UnknownEvent,
    )


def _named(target: type[Event]) -> tuple[str, ...]:
    """Return what a class brings; nothing yet for a base, which brings all that inherit it."""
    if target is Event:
        return (">",)
    return () if target.event_spec is None else (target.event_spec.name,)


def _with_defaults(
    accepts: tuple[type[Event], ...], options: ListenerOptions[EventT]
) -> ListenerOptions[EventT]:
    """Return the options with what the events say where the listener doesn't, if they agree."""
    specs = [one.event_spec for one in accepts if one is not StateDeleted]
    defaults: dict[str, object] = {}
    for option in ("queue", "timeout", "delay", "tries"):
        if option == "tries" and "retry" in options:
            continue  # its own policy says that too
        said = {getattr(spec, option, None) for spec in specs}
        if len(said) == 1 and None not in said:
            defaults[option] = said.pop()
    return cast("ListenerOptions[EventT]", {**defaults, **options})


def check_replay(
    listener: str, start: Start, until: datetime | None, *, again: bool, now: datetime
) -> None:
    """Check what a replay is asked for, before anything runs.

    Raises:
        DeclarationError: It is no place to start from or to end at, or nothing is between them.
    """
    about = f"replay of listener '{listener}'"
    if start == "new" or not _is_place(start):
        raise DeclarationError(
            f"{about}: there is nothing to replay from {start!r}; give 'all', a time with its "
            f"zone, or a sequence from 1 to {LAST_SEQUENCE}"
        )
    if until is not None and not _is_time(until):
        raise DeclarationError(f"{about}: until={until!r} must be a time with its zone, or None")
    if type(again) is not bool:
        raise DeclarationError(f"{about}: again={again!r} must be True or False")
    if isinstance(start, datetime):
        _check_range(about, start, until, now)


def _check_range(about: str, start: datetime, until: datetime | None, now: datetime) -> None:
    if start > now:
        raise DeclarationError(
            f"{about}: nothing is stored yet from {render_time(start)} on; give a time in the past"
        )
    if until is not None and until <= start:
        raise DeclarationError(
            f"{about}: nothing is between its start {render_time(start)} and its end "
            f"{render_time(until)}; the end must be later"
        )


def replayed_from(one: Subscription, start: Start, *, again: bool = False) -> Subscription:
    """Return a listener as a replay works it; ``again`` also where it is marked as handled."""
    return replace(
        one,
        start=start,
        instance=f"replay_{uuid4().hex[:12]}",
        mode="work",
        ends=True,
        replays=one.durable,
        again=again,
        concurrency=1 if one.ordered else one.concurrency,
        ordered=False,
        on_failure="skip",
        delay=None,
    )


def _batch(
    listener: str, options: Mapping[str, object], annotations: tuple[object, ...]
) -> Batch | None:
    batch = options.get("batch")
    takes_list = bool(annotations) and items_of(annotations[0]) is not None
    if batch is None and not takes_list:
        return None
    if not isinstance(batch, Batch):
        raise DeclarationError(
            f"listener '{listener}' takes a list of events, so it needs batch=Batch(...)"
            if takes_list
            else f"listener '{listener}': batch={batch!r} isn't a Batch; write batch=Batch(max=100)"
        )
    if not takes_list and annotations and annotations[0] is not None:
        raise DeclarationError(
            f"listener '{listener}' has batch=, so its first parameter must be a list[...]"
        )
    if options.get("ordered"):
        raise DeclarationError(
            f"listener '{listener}': ordered=True handles a key's events one after the other, "
            "which batch= contradicts; drop one of them"
        )
    return batch


def _check_options(options: Mapping[str, object]) -> None:
    known = tuple(BatchOptions.__annotations__)
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known)
            raise DeclarationError(f"subscribe() has no option {option!r}{hint}")


def _name(listener: Callable[..., Awaitable[object]], options: ListenerOptions[EventT]) -> str:
    try:
        return check_name(options.get("name", function_name(listener)), "listener")
    except SubjectError as exc:
        raise DeclarationError(f"{exc}; pass name= to subscribe()") from exc


def _failed(listener: str, hook: FailedHook[EventT] | None) -> FailedHook[Event] | None:
    if hook is not None and not is_async(hook):
        raise DeclarationError(
            f"listener '{listener}': failed={hook!r} isn't an async function; "
            "write 'async def gave_up(event, context, error)'"
        )
    return cast("FailedHook[Event] | None", hook)


def _timeout(listener: str, value: Duration) -> float:
    limit = duration_of(listener, "timeout", value)
    if not limit:
        raise DeclarationError(f"listener '{listener}': timeout={value!r} leaves it no time")
    return limit


def _retry(listener: str, retry: Retry | None) -> Retry | None:
    if retry is None or isinstance(retry, Retry):
        return retry
    raise DeclarationError(
        f"listener '{listener}': retry={retry!r} isn't a Retry; write retry=Retry(attempts=...)"
    )


def _ordered(listener: str, options: ListenerOptions[EventT]) -> bool:
    ordered = options.get("ordered", False)
    if type(ordered) is not bool:
        raise DeclarationError(f"listener '{listener}': ordered={ordered!r} must be True or False")
    return ordered


def _on_failure(listener: str, options: ListenerOptions[EventT]) -> OnFailure:
    chosen = options.get("on_failure", "skip")
    if chosen not in ("skip", "park_key"):
        raise DeclarationError(
            f"listener '{listener}': on_failure={chosen!r} must be 'skip' or 'park_key'"
        )
    if "on_failure" in options and not options.get("ordered"):
        raise DeclarationError(
            f"listener '{listener}': on_failure={chosen!r} is about order by key; add "
            "ordered=True, or drop it"
        )
    return chosen


def _inbox(listener: str, options: Mapping[str, object]) -> Inbox | None:
    chosen = options.get("inbox", False)
    if chosen not in (True, False, "sql", "kv"):
        raise DeclarationError(
            f"listener '{listener}': inbox={chosen!r} must be True (the same as 'sql'), or 'kv'"
        )
    if chosen and options.get("batch") is not None:
        raise DeclarationError(
            f"listener '{listener}': inbox= handles one event in a transaction, which batch= "
            "contradicts; drop one of them"
        )
    return ("kv" if chosen == "kv" else "sql") if chosen else None


def _atomic(listener: str, options: Mapping[str, object]) -> bool:
    atomic = options.get("atomic", False)
    if type(atomic) is not bool:
        raise DeclarationError(f"listener '{listener}': atomic={atomic!r} must be True or False")
    if atomic and options.get("inbox"):
        raise DeclarationError(
            f"listener '{listener}' has inbox= and atomic=True: the mark is in the database, or "
            "in the stream with what it emits; choose one"
        )
    if atomic and (options.get("batch") is not None or options.get("mode", "work") != "work"):
        raise DeclarationError(
            f"listener '{listener}': atomic=True marks each event once for all processes, which "
            "batch= and mode= contradict; drop one of them"
        )
    return atomic


def _start(listener: str, start: Start) -> Start:
    if start == "new" or _is_place(start):
        return start
    raise DeclarationError(
        f"listener '{listener}': start={start!r} must be 'new', 'all', a time with its "
        f"zone, or a sequence from 1 to {LAST_SEQUENCE}"
    )


def _is_place(start: object) -> bool:
    """Tell whether it is a place in a stream, which "new" isn't yet."""
    if type(start) is int:
        return 1 <= start <= LAST_SEQUENCE
    return start == "all" or _is_time(start)


def _is_time(value: object) -> bool:
    return isinstance(value, datetime) and value.utcoffset() is not None
