"""`Shortcut`: the way of a delivery that comes for the first time, can be read, and is handled.

It makes no envelope, no decision and no record that nobody asks for. What it can't take, and what
doesn't go well, goes the whole way, which is dispatch's.
"""

import asyncio
from collections.abc import Awaitable, Coroutine, Sequence
from contextvars import Context as Variables
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from functools import partial
from types import CoroutineType
from typing import Protocol, TypeAlias, cast

from eventbus.attempts import FIRST
from eventbus.correlation import running
from eventbus.delivery import Decision, Delivery, Readable, is_readable
from eventbus.driving import Begun, begin
from eventbus.glance import Glance, Reader
from eventbus.judging import HANDLED
from eventbus.middleware.base import CallNext, Context, Middleware
from eventbus.middleware.brackets import RunBracket, RunBrackets, run_brackets_of
from eventbus.middleware.timeout import Timeout
from eventbus.records import glanced_of, handled_of
from eventbus.settlement import Run
from eventbus.subscription import Subscription
from eventbus.telemetry.signals import ListenerStarted, Received, is_watched
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
        self._attempts = attempts
        self._whole = whole
        self._reader = Reader(subscription, wiring)

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
        started = self._wiring.clock.monotonic()
        context, around, bracket = running(glance), self._around, None
        if around is not None and around.brackets is not None:
            bracket = self._bracket(around.brackets, glance, delivery, context)
            if bracket is None:
                around = None
        try:
            waiting = begin(self._called(glance, delivery, around), context)
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - dispatch judges it
            _close(bracket, exc)
            return self._failed(glance, delivery, exc, started, aftermath)
        if waiting is not None:
            rest = self._limited(around, waiting, bracket, started)
            return self._wait(glance, delivery, rest, started, aftermath)
        _close(bracket)
        self._handled(glance, delivery, started, aftermath)
        return None

    async def _wait(
        self,
        glance: Glance,
        delivery: Readable,
        waiting: Awaitable[object],
        started: float,
        aftermath: Aftermath,
    ) -> None:
        try:
            await waiting
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - dispatch judges it
            rest = self._failed(glance, delivery, exc, started, aftermath)
        else:
            return self._handled(glance, delivery, started, aftermath)
        await rest

    def _limited(
        self, around: "Around | None", waiting: Begun, bracket: RunBracket | None, started: float
    ) -> Awaitable[object]:
        """Return what waits for as long as a run may take that began at some time."""
        if around is None:
            return waiting
        began = asyncio.get_running_loop().time() - (self._wiring.clock.monotonic() - started)
        # Within the limit, as the middleware would be.
        rest = waiting if bracket is None else _closing(waiting, bracket)
        return around.limit.wait(rest, began, self._subscription.listener)

    def _bracket(
        self, brackets: RunBrackets, glance: Glance, delivery: Readable, context: Variables
    ) -> RunBracket | None:
        one, plan = self._subscription, glance.plan
        bracket = brackets.bracket(
            glance.trace or "",
            plan.name,
            delivery.subject.decode(),
            one.service,
            one.listener,
            glance.id,
            glance.correlation_id,
            1,
            plan.version,
        )
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
        one, observe, name = self._subscription, self._wiring.observe, glance.plan.name
        observe(Received(name, one.service, one.listener, False))
        if is_watched(observe, ListenerStarted):
            service, listener, related = one.service, one.listener, glance.correlation_id
            observe(ListenerStarted(name, glance.id, service, listener, 1, related))

    def _handled(
        self, glance: Glance, delivery: Readable, started: float, aftermath: Aftermath
    ) -> None:
        """Have it acknowledged with others; it is told once the server knows."""
        duration = self._wiring.clock.monotonic() - started
        glance.let_go()
        aftermath.began()
        delivery.ack_soon(partial(self._told, glance, delivery, duration, aftermath))

    def _told(
        self,
        glance: Glance,
        delivery: Readable,
        duration: float,
        aftermath: Aftermath,
        known: bool,
    ) -> None:
        one, wiring = self._subscription, self._wiring
        if known:
            now = wiring.clock.now()
            wiring.observe(handled_of(glance, delivery, one, self._attempts, duration, now))
            aftermath.ended()
        else:
            run = self._run(glance, delivery, duration)
            aftermath.go_on(self._whole.ack_alone(run, HANDLED, aftermath))

    def _failed(
        self,
        glance: Glance,
        delivery: Readable,
        raised: Exception | asyncio.CancelledError,
        started: float,
        aftermath: Aftermath,
    ) -> Awaitable[object]:
        duration = self._wiring.clock.monotonic() - started
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


@dataclass(frozen=True, slots=True)
class Around:
    """What stands around a listener, as far as it can be taken apart."""

    limit: Timeout
    brackets: RunBrackets | None = None


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
