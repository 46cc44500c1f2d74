"""The shortcut: nothing is different on it but what it costs."""

import asyncio
import gc
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from typing_extensions import override

from eventbus import codec
from eventbus.correlation import Scope, current_scope
from eventbus.declaration import subscription
from eventbus.delivery import Outcome
from eventbus.dispatch import Dispatcher
from eventbus.envelope import Envelope, Message
from eventbus.errors import Discard, Reject, RetryLater
from eventbus.event import Event
from eventbus.glance import Reader
from eventbus.middleware.base import CallNext, Context
from eventbus.registry import Registry
from eventbus.telemetry.context import active_span
from eventbus.telemetry.exporting import WholeSpans
from eventbus.telemetry.provider import OwnProvider
from eventbus.telemetry.quickspan import QuickSpans
from eventbus.telemetry.signals import Happened, Settled
from eventbus.telemetry.spans import SCOPE, ConsumeTracing
from tests.unit.bench import (
    RETRY,
    SUBJECTS,
    Bench,
    UserCreated,
    UserCreatedV2,
    arriving,
    raising,
    welcome,
)
from tests.unit.conftest import START, Afterwards, ReadableDelivery, RecordingDriver, StillClock

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
here: ContextVar[int] = ContextVar("here", default=0)


@pytest.fixture
def bench(driver: RecordingDriver, clock: StillClock) -> Bench:
    return Bench(driver, clock, is_short=True)


async def is_plain(
    dispatcher: Dispatcher, delivery: ReadableDelivery, aftermath: Afterwards | None = None
) -> bool:
    """Dispatch a delivery, and tell whether nothing of it had to be awaited."""
    rest = dispatcher.begin(delivery, aftermath or Afterwards())
    if rest is not None:
        await rest
    return rest is None


async def suspend(event: UserCreated) -> None:
    await asyncio.sleep(0)


async def look(event: UserCreated, context: Context) -> None:
    assert context.event is event


async def fail_later(event: UserCreated) -> None:
    await asyncio.sleep(0)
    raise RuntimeError("later")


async def test_what_is_plain_is_handled_without_waiting(bench: Bench) -> None:
    assert await is_plain(bench.dispatcher(welcome), bench.delivery())  # type: ignore[arg-type]

    assert bench.driver.journal == ["ack"]
    assert [type(one).__name__ for one in bench.told] == ["Received", "ListenerStarted", "Settled"]


def _comparable(one: Happened) -> object:
    """Return a record with its error's text, since each run raises one of its own."""
    if isinstance(one, Settled):
        return replace(one, error=None), repr(one.error)
    return one


LISTENERS = {
    "returns": welcome,
    "waits": suspend,
    "takes the context": look,
    "raises": raising(ValueError("x")),
    "raises once it has waited": fail_later,
    "rejects": raising(Reject("no")),
    "discards": raising(Discard("done")),
    "wants it later": raising(RetryLater(9)),
}


@pytest.mark.parametrize("listener", LISTENERS.values(), ids=LISTENERS)
async def test_all_that_is_told_and_settled_is_the_same_on_both_ways(
    bench: Bench, listener: Callable[..., Awaitable[None]]
) -> None:
    seen: list[object] = []
    for is_short in (False, True):
        bench.is_short = is_short
        await bench.run(bench.dispatcher(listener), bench.delivery(sequence=7))
        told = [_comparable(one) for one in bench.told]
        seen.append((told, bench.driver.journal[:]))
        bench.told.clear()
        bench.driver.journal.clear()

    assert seen[0] == seen[1]


async def test_what_a_listener_may_know_is_the_same_on_both_ways(bench: Bench) -> None:
    async def look_closely(event: UserCreated, context: Context) -> None:
        seen.append(context)

    seen: list[Context] = []
    for is_short in (False, True):
        bench.is_short = is_short
        for more in ({}, {"traceparent": TRACE}):
            message = arriving(**more)
            await bench.run(bench.dispatcher(look_closely), bench.delivery(message, sequence=7))

    assert seen[:2] == seen[2:]
    assert [one.trace for one in seen[:2]] == [{}, {"traceparent": TRACE}]
    assert (seen[2].key, seen[2].attempt, seen[2].sequence) == ("u-1", 1, 7)


async def test_what_a_listener_emits_is_the_same_on_both_ways(bench: Bench) -> None:
    async def send(event: UserCreated) -> None:
        for _ in range(2):
            scope = current_scope()
            seen.append((scope.correlation_id, scope.causation_id, scope.trace))
            seen.append(scope.id_for("email.sent", None, b"{}"))

    seen: list[object] = []
    for is_short in (False, True):
        bench.is_short = is_short
        await bench.run(bench.dispatcher(send), bench.delivery(arriving(traceparent=TRACE)))

    assert seen[0] == ("c-1", "id-1", {"traceparent": TRACE})
    assert seen[:4] == seen[4:]
    assert len({*seen[1::2]}) == 2


async def test_a_layer_around_the_listener_stands_around_it_here_too(bench: Bench) -> None:
    async def layer(context: Context, call_next: CallNext) -> None:
        bench.driver.journal.append(f"before {context.id}")
        await call_next(context)

    bench.middleware = (layer,)

    assert await is_plain(bench.dispatcher(welcome), bench.delivery())  # type: ignore[arg-type]
    assert bench.driver.journal == ["before id-1", "ack"]


async def test_each_run_has_a_context_of_its_own(bench: Bench) -> None:
    seen: list[object] = []

    async def send(event: UserCreated) -> None:
        seen.append(here.get())
        here.set(1)
        await asyncio.sleep(0)
        seen.append((here.get(), current_scope().causation_id))

    dispatcher = bench.dispatcher(send)
    for _ in range(2):
        await is_plain(dispatcher, bench.delivery())  # type: ignore[arg-type]

    assert seen == [0, (1, "id-1")] * 2
    assert (here.get(), current_scope()) == (0, Scope())


async def test_what_the_server_did_not_confirm_is_acknowledged_alone(bench: Bench) -> None:
    aftermath = Afterwards()

    class Refused(ReadableDelivery):
        @override
        def ack_soon(self, done: Callable[[bool], None]) -> None:
            done(False)

    delivery = Refused(arriving(), journal=bench.driver.journal)
    assert await is_plain(bench.dispatcher(welcome), delivery, aftermath)
    assert (aftermath.open, bench.driver.journal) == (1, [])
    await aftermath.left[0]

    assert (aftermath.open, bench.driver.journal) == (0, ["ack"])
    (settled,) = (one for one in bench.told if isinstance(one, Settled))
    assert (settled.outcome, settled.id) == (Outcome.OK, "id-1")


async def test_what_no_longer_fits_its_class_is_acknowledged_alone_too(bench: Bench) -> None:
    aftermath = Afterwards()

    class Refused(ReadableDelivery):
        @override
        def ack_soon(self, done: Callable[[bool], None]) -> None:
            # As where a validator looks at a clock.
            object.__setattr__(self, "message", replace(self.message, body=b"{}"))
            done(False)

    delivery = Refused(arriving(), journal=bench.driver.journal)
    assert await is_plain(bench.dispatcher(welcome), delivery, aftermath)
    await aftermath.left[0]

    assert (aftermath.open, bench.driver.journal) == (0, ["ack"])


# What can be read at a glance -------------------------------------------------------------------


async def take_any(event: Event) -> None: ...


def reader(bench: Bench, listener: Callable[..., Awaitable[None]] = welcome) -> Reader:
    one = subscription("mail", "user.created", listener, {"name": "send"})
    bench.registry.register(UserCreated)
    dispatcher = bench.dispatcher(welcome)
    return Reader(one, dispatcher._wiring)


def sent(**changes: Any) -> Message:
    """Return a message as our own emitters write it."""
    scope = Scope("c-1", changes.pop("cause", None), changes.pop("trace", {}))
    one = Envelope.of(UserCreated(user_id="u-1"), source="user", time=START, scope=scope)
    one = replace(one, **changes)
    message = codec.encode(one, SUBJECTS.event(one.name))
    return replace(message, headers={**message.headers, "Nats-Msg-Id": one.id})


PLAIN: dict[str, dict[str, Any]] = {
    "an event": {},
    "caused by another": {"cause": "id-0"},
    "without a key": {"key": None},
    "with an empty key": {"key": ""},
    "with a key that is escaped": {"key": "a key: 50 % für dich"},
    "with a trace": {"cause": "id-0", "trace": {"traceparent": TRACE}},
    "with tags, of a version to come": {"tags": ("a", "b"), "version": 3},
    "from a source that is escaped": {"source": "ä service", "kind": "domain"},
    "in a second that isn't full": {"time": START + timedelta(microseconds=5)},
}


@pytest.mark.parametrize("changes", PLAIN.values(), ids=PLAIN)
def test_what_is_read_at_a_glance_is_what_is_decoded(
    bench: Bench, changes: dict[str, Any]
) -> None:
    message = sent(**changes)
    delivery = ReadableDelivery(message)

    glance = reader(bench).read(delivery)

    assert glance is not None
    name = glance.plan.name
    envelope = codec.decode(message, name, bench.registry, received=START)
    assert glance.envelope() == envelope
    assert (glance.id, glance.time) == (envelope.id, envelope.time)
    assert glance.correlation_id == envelope.correlation_id
    assert glance.causation_id == envelope.causation_id
    assert glance.trace == envelope.trace.get("traceparent")


def headed(**headers: str) -> dict[str, Mapping[str, str]]:
    """Return the headers of an event and others, which may replace them."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"headers": {**sent().headers, **given}}


OTHERS: dict[str, Message] = {
    "expires": sent(expires=START),
    "was delayed": sent(due=START),
    "headers of a user": sent(headers={"x-tenant": "a"}),
    "baggage": sent(trace={"traceparent": TRACE, "baggage": "a=b"}),
    "an id that is escaped": sent(correlation_id="ä"),
    "a retry": replace(sent(), subject=f"{RETRY}user.created"),
    "nobody declares it": replace(sent(), subject="events.user.deleted"),
    "a field is missing": replace(sent(), body=b"{}"),
    "too deep": replace(sent(), body=b"[" * 10_000),
    "headers before": replace(sent(), headers={"x-tenant": "a", **sent().headers}),
    "headers behind": replace(sent(), **headed(x_tenant="a")),
    "another type": replace(sent(), **headed(ce_type="user.deleted")),
    "a time with spaces": replace(sent(), **headed(ce_time="now or then")),
    "no headers": replace(sent(), headers={}),
}


@pytest.mark.parametrize("message", OTHERS.values(), ids=OTHERS)
def test_what_takes_more_than_a_glance_is_left_to_the_decoder(
    bench: Bench, message: Message
) -> None:
    assert reader(bench).read(ReadableDelivery(message)) is None


def test_a_time_that_is_none_is_that_of_the_stream(bench: Bench) -> None:
    message = replace(sent(), headers={**sent().headers, "ce-time": "yesterday"})
    delivery = ReadableDelivery(message, stored_at=START + timedelta(seconds=9))

    glance = reader(bench).read(delivery)

    assert glance is not None
    assert glance.time == START + timedelta(seconds=9)


def test_an_event_whose_head_begins_like_the_last_ones_is_read_at_a_glance(bench: Bench) -> None:
    one = reader(bench)

    found = [
        one.read(ReadableDelivery(sent(tags=tags)))
        for tags in [("a",), (), ("a",), ("a", "b"), ("a",), ("ab",), ()]
    ]

    assert None not in found


def test_a_class_that_is_declared_later_is_taken_into_account(bench: Bench) -> None:
    one, message = reader(bench, take_any), sent(version=2)
    first = one.read(ReadableDelivery(message))
    bench.registry.register(UserCreatedV2)

    second = one.read(ReadableDelivery(message))

    assert (type(first and first.event), type(second and second.event)) == (
        UserCreated,
        UserCreatedV2,
    )


def test_what_strangers_send_does_not_fill_the_memory(bench: Bench) -> None:
    one, message = reader(bench), sent()
    for number in range(1000):
        headers = {**message.headers, "ce-source": f"s{number}"}
        one.read(ReadableDelivery(replace(message, headers=headers)))

    assert len(one._plans) <= 256


def test_a_registry_counts_its_changes() -> None:
    registry = Registry()
    registry.register(UserCreated)

    assert registry.changes == 1


class Layer:
    """The tracing middleware as it is called, so that it isn't taken apart."""

    def __init__(self, tracing: ConsumeTracing) -> None:
        self._tracing = tracing

    async def __call__(self, context: Context, call_next: CallNext) -> None:
        await self._tracing(context, call_next)


def traced() -> tuple[ConsumeTracing, InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), OwnProvider()
    processor = SimpleSpanProcessor(WholeSpans(exporter))
    provider.export_to(processor)
    return ConsumeTracing(provider, QuickSpans(provider, processor, SCOPE)), exporter


async def late(event: UserCreated) -> None:
    await asyncio.Event().wait()


async def inner(event: UserCreated) -> None:
    await asyncio.sleep(0)
    trace.get_current_span().set_attribute("inner", active_span() is not None)


UNSAMPLED = f"{TRACE[:-2]}00"


@pytest.mark.parametrize("carried", [{}, {"traceparent": TRACE}, {"traceparent": UNSAMPLED}])
@pytest.mark.parametrize(
    "listener",
    [*LISTENERS.values(), late, inner],
    ids=[*LISTENERS, "times out", "looks at its span"],
)
async def test_the_span_of_a_run_is_the_same_taken_apart_and_called(
    bench: Bench, listener: Callable[..., Awaitable[None]], carried: dict[str, str]
) -> None:
    seen: list[object] = []
    for kind in (Layer, lambda one: one):
        tracing, exporter = traced()
        bench.middleware = (kind(tracing),)
        dispatcher = bench.dispatcher(listener, timeout=0.05 if listener is late else 30)
        await bench.run(dispatcher, bench.delivery(arriving(**carried)))
        seen.append([_told(one) for one in exporter.get_finished_spans()])
        seen.append([_comparable(one) for one in bench.told])
        bench.told.clear()
        assert not trace.get_current_span().get_span_context().is_valid

    assert seen[:2] == seen[2:]
    assert len(seen[0]) == (carried.get("traceparent") != UNSAMPLED)  # type: ignore[arg-type]


def _told(span: ReadableSpan) -> object:
    """Return what doesn't differ from run to run."""
    events = [one.name for one in span.events]
    links = [one.context for one in span.links]
    status = span.status.status_code, span.status.description
    return span.name, dict(span.attributes or {}), events, links, status, span.parent


async def test_a_listener_whose_span_is_taken_apart_needs_no_waiting(bench: Bench) -> None:
    tracing, exporter = traced()
    bench.middleware = (tracing,)

    assert await is_plain(bench.dispatcher(welcome), bench.delivery())  # type: ignore[arg-type]
    assert [one.name for one in exporter.get_finished_spans()] == ["process user.created"]


async def test_a_run_that_is_cancelled_before_it_goes_on_leaves_no_coroutine_behind(
    bench: Bench,
) -> None:
    tracing, _ = traced()
    bench.middleware = (tracing,)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")

        rest = bench.dispatcher(suspend).begin(bench.delivery(), Afterwards())
        assert isinstance(rest, Coroutine)
        rest.close()
        del rest
        gc.collect()

    assert [str(one.message) for one in warned if one.category is RuntimeWarning] == []
