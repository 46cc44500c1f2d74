"""`Shortcut`: the way of a delivery that comes for the first time, can be read, and is handled.

It makes no envelope, no decision and no record that nobody asks for. What it can't take, and what
doesn't go well, goes the whole way, which is dispatch's.
"""

import asyncio
from collections.abc import Awaitable, Coroutine, Sequence
from contextvars import Context as Variables
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from types import CoroutineType
from typing import Protocol, TypeAlias, cast

from eventbus.attempts import FIRST
from eventbus.correlation import begin_in, running
from eventbus.delivery import Decision, Delivery, Readable, is_readable
from eventbus.driving import Begun, begin
from eventbus.glance import Glance, Plan, Reader
from eventbus.judging import HANDLED
from eventbus.middleware.base import CallNext, Context, Middleware
from eventbus.middleware.brackets import RunBracket, RunBrackets, run_brackets_of
from eventbus.middleware.timeout import Timeout
from eventbus.records import glanced_of, handled_of
from eventbus.settlement import Run
from eventbus.subscription import Subscription
from eventbus.telemetry.signals import (
    Audiences,
    ListenerStarted,
    Received,
    count_handled,
    count_received,
    tell,
)
from eventbus.wiring import Wiring

__all__ = ("NOT_PLAIN", "Aftermath", "Around", "NotPlain", "Shortcut", "WholeWay", "around_of")

_NO_CONTEXT = cast("Context", None)
"""For handlers that don't look at it."""
_Call: TypeAlias = Coroutine[object, object, object]


class NotPlain(Enum):
    """Says that a delivery has to go the whole way; nothing is told or done yet."""

    NOT_PLAIN = auto()


NOT_PLAIN = NotPlain.NOT_PLAIN


class Aftermath(Protocol):
    """Who counts the acknowledgements that the server hasn't confirmed, for a stop to wait."""

    def began(self) -> None:
        """Count one."""
        ...

    def ended(self) -> None:
        """Count it as done with, whatever became of it."""
        ...

    def go_on(self, coroutine: Coroutine[object, object, None]) -> None:
        """Run what has to wait after all in a task; it tells when it has `ended`."""
        ...


class WholeWay(Protocol):
    """What a shortcut leaves to dispatch."""

    def go_on(
        self, run: Run, raised: Exception | asyncio.CancelledError, aftermath: Aftermath
    ) -> Awaitable[object]:
        """Return what settles a delivery whose run has raised."""
        ...

    def ack_alone(
        self, run: Run, decision: Decision, aftermath: Aftermath
    ) -> Coroutine[object, object, None]:
        """Acknowledge what couldn't be with others; cancelled, the server delivers it again."""
        ...


class Shortcut:
    """Runs the plain deliveries of one listener."""

    def __init__(
        self,
        subscription: Subscription,
        wiring: Wiring,
        chain: CallNext,
        around: "Around | None",
        attempts: int,
        whole: WholeWay,
    ) -> None:
        self._subscription = subscription
        self._wiring = wiring
        self._chain = chain
        self._around = around
        """All that stands around the listener, where it wants nothing but the event."""
        self._last: tuple[Plan, object] | None = None
        """How the last event was read, and the pattern of its bracket."""
        self._attempts = attempts
        self._whole = whole
        self._reader = Reader(subscription, wiring)
        self._monotonic = wiring.clock.monotonic
        self._audiences = Audiences(wiring.observe, subscription.listener)
        self._now: datetime | None = None
        """When it is, until the turn of the loop ends."""

    def begin(
        self, delivery: Delivery, aftermath: Aftermath
    ) -> Awaitable[object] | NotPlain | None:
        """Handle a delivery as far as it doesn't wait.

        Returns what is left to await, at once and in the same task; None where nothing is.
        """
        if delivery.deliveries != 1 or not is_readable(delivery) or delivery.lost:
            return NOT_PLAIN
        glance = self._reader.read(delivery)
        if glance is None:
            return NOT_PLAIN
        self._tell_begun(glance)
        started = self._monotonic()
        around, bracket, context = self._around, None, None
        try:
            if around is not None and around.brackets is not None:
                context = running(glance)
                bracket = self._bracket(around.brackets, glance, delivery, context)
                if bracket is None:
                    around = None
            call = self._called(glance, delivery, around)
            waiting = begin_in(glance, call) if context is None else begin(call, context)
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - dispatch judges it
            _close(bracket, exc)
            return self._failed(glance, delivery, exc, started, aftermath)
        one = _Handled(self, glance, delivery, aftermath)
        if waiting is not None:
            return self._wait(one, _Left(around, waiting, bracket), started)
        _close(bracket)
        one.ack_soon(self._monotonic() - started)
        return None

    async def _wait(self, one: "_Handled", left: "_Left", started: float) -> None:
        # What waits is made here, and not before: this may be cancelled before it runs at all.
        try:
            await self._limited(left, started)
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - dispatch judges it
            rest = self._failed(one.glance, one.delivery, exc, started, one.aftermath)
        else:
            return one.ack_soon(self._monotonic() - started)
        await rest

    def _limited(self, left: "_Left", started: float) -> Awaitable[object]:
        """Return what waits for as long as a run may take that began at some time."""
        if left.around is None:
            return left.waiting
        began = asyncio.get_running_loop().time() - (self._monotonic() - started)
        # Within the limit, as the middleware would be.
        rest = left.waiting if left.bracket is None else _closing(left.waiting, left.bracket)
        return left.around.limit.wait(rest, began, self._subscription.listener)

    def _bracket(
        self, brackets: RunBrackets[object], glance: Glance, delivery: Readable, context: Variables
    ) -> RunBracket | None:
        plan, last = glance.plan, self._last
        if last is None or last[0] is not plan:
            one, subject = self._subscription, delivery.arrived.subject_bytes.decode()
            pattern = brackets.pattern(plan.name, plan.version, subject, one.service, one.listener)
            last = self._last = plan, pattern
        trace, id, related = glance.trace or "", glance.id, glance.correlation_id
        bracket = brackets.bracket(last[1], trace, id, related, 1)
        if bracket is not None:
            bracket.activate(context)
        return bracket

    def _called(self, glance: Glance, delivery: Readable, around: "Around | None") -> _Call:
        call: Awaitable[object]
        if around is None:
            one, emit = self._subscription, self._wiring.emit
            call = self._chain(glanced_of(glance, delivery, one, emit))
        else:
            call = self._subscription.handler(glance.event, _NO_CONTEXT)
        return cast("_Call", call) if type(call) is CoroutineType else _awaiting(call)

    def _tell_begun(self, glance: Glance) -> None:
        one, name = self._subscription, glance.plan.name
        audience = self._audiences.of(name)
        count_received(audience)
        if audience.received:
            tell(audience.received, Received(name, one.service, one.listener, False))
        if audience.started:
            service, listener, related = one.service, one.listener, glance.correlation_id
            begun = ListenerStarted(name, glance.id, service, listener, 1, related)
            tell(audience.started, begun)

    def told(self, one: "_Handled") -> None:
        """Tell that the server knows that a delivery is handled."""
        try:
            self._tell_handled(one)
        finally:
            one.aftermath.ended()

    def _tell_handled(self, one: "_Handled") -> None:
        glance, now = one.glance, self._now
        audience = self._audiences.of(glance.plan.name)
        if now is None:
            now = self._now = self._wiring.clock.now()
            asyncio.get_running_loop().call_soon(self._end_turn)
        if audience.counters:
            elapsed = (now - glance.time).total_seconds()
            count_handled(audience, one.duration, elapsed, glance.trace or "")
        if audience.settled:
            listener, attempts = self._subscription, self._attempts
            settled = handled_of(glance, one.delivery, listener, attempts, one.duration, now)
            tell(audience.settled, settled)

    def untold(self, one: "_Handled") -> None:
        """Have a delivery acknowledged that couldn't be with others."""
        try:
            run = self._run(one.glance, one.delivery, one.duration)
        except Exception:  # noqa: BLE001 - a validator that looks at a clock fits it no longer
            run = Run(one.delivery, one.glance.plan.name, begun=True, duration=one.duration)
        one.aftermath.go_on(self._whole.ack_alone(run, HANDLED, one.aftermath))

    def _end_turn(self) -> None:
        self._now = None

    def _failed(
        self,
        glance: Glance,
        delivery: Readable,
        raised: Exception | asyncio.CancelledError,
        started: float,
        aftermath: Aftermath,
    ) -> Awaitable[object]:
        duration = self._monotonic() - started
        run = self._run(glance, delivery, duration)
        return self._whole.go_on(run, raised, aftermath)

    def _run(self, glance: Glance, delivery: Readable, duration: float = 0.0) -> Run:
        """Return what dispatch would know of it by now."""
        began = self._wiring.clock.now() - timedelta(seconds=duration)
        return Run(
            delivery,
            glance.plan.name,
            envelope=glance.envelope(),
            verdict=FIRST.running(began),
            begun=True,
            duration=duration,
        )


class _Handled:
    """What is to be told of a delivery once the server knows that it is handled."""

    __slots__ = ("_shortcut", "aftermath", "delivery", "duration", "glance")

    def __init__(
        self,
        shortcut: Shortcut,
        glance: Glance,
        delivery: Readable,
        aftermath: Aftermath,
    ) -> None:
        self._shortcut = shortcut
        self.glance = glance
        self.delivery = delivery
        self.aftermath = aftermath
        self.duration = 0.0

    def ack_soon(self, duration: float) -> None:
        """Have it acknowledged with others, after a run of so many seconds."""
        self.duration = duration
        self.glance.let_go()
        self.aftermath.began()
        self.delivery.ack_soon(self._confirmed)

    def _confirmed(self, known: bool) -> None:
        if known:
            self._shortcut.told(self)
        else:
            self._shortcut.untold(self)


@dataclass(frozen=True, slots=True)
class Around:
    """What stands around a listener, as far as it can be taken apart."""

    limit: Timeout
    brackets: RunBrackets[object] | None = None


class _Left:
    """What is left of a run that waits."""

    __slots__ = ("around", "bracket", "waiting")

    def __init__(self, around: Around | None, waiting: Begun, bracket: RunBracket | None) -> None:
        self.around = around
        self.waiting = waiting
        self.bracket = bracket


def around_of(layers: Sequence[Middleware]) -> Around | None:
    """Return what layers come to; None where they have to be called."""
    limit, brackets = layers[0], None
    if len(layers) == 2:
        brackets = run_brackets_of(layers[1])
    if not isinstance(limit, Timeout) or len(layers) != 1 + (brackets is not None):
        return None
    return Around(limit, brackets)


def _close(bracket: RunBracket | None, raised: BaseException | None = None) -> None:
    if bracket is not None:
        bracket.close(raised)


async def _closing(waiting: Begun, bracket: RunBracket) -> None:
    try:
        await waiting
    except (Exception, asyncio.CancelledError) as exc:
        bracket.close(exc)
        raise
    bracket.close()


async def _awaiting(call: Awaitable[object]) -> None:
    await call
