"""One delivery: decode, run the chain, decide, have it settled."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from eventbus.attempts import Attempts, Known
from eventbus.calling import failed_with, raised_by, scope_of, tell_failed
from eventbus.correlation import entered
from eventbus.delivery import (
    DeadLetter,
    Decision,
    Delivery,
    Outcome,
    Reason,
    Return,
)
from eventbus.duration import seconds
from eventbus.envelope import Envelope
from eventbus.errors import (
    EventBusError,
    GaveUpError,
    Postpone,
    SettleError,
)
from eventbus.judging import Judge
from eventbus.middleware.base import Context, Middleware, chain
from eventbus.middleware.breaker import BreakerState, Circuit
from eventbus.middleware.limit import Limit
from eventbus.records import context_of, settled_of
from eventbus.settlement import Run, Settler, Wait
from eventbus.shortcut import NOT_PLAIN, Aftermath, Shortcut, around_of
from eventbus.subscription import Subscription
from eventbus.telemetry.conditions import BreakerChanged
from eventbus.telemetry.signals import (
    ListenerStarted,
    Received,
    Returned,
    Settled,
    Stuck,
    is_watched,
)
from eventbus.wiring import Wiring, gathering_of, layers_of

__all__ = ("Dispatcher",)

LOOK_AGAIN = 1.0
"""Seconds until an event comes back of which nobody knows now whose it is."""
BEHIND_PROBE = 1.5
"""By how much longer than its breaker's pause an event stays away that failed meanwhile."""
DELAY_IN_PLACE = 5.0
"""A listener's own delay that lasts longer holds no pending place of the consumer."""
_UNREADABLE = (Reason.INVALID, Reason.UNKNOWN_EVENT)


class Dispatcher:
    """Handles the deliveries of one subscription."""

    def __init__(self, subscription: Subscription, wiring: Wiring) -> None:
        self._subscription = subscription
        self._wiring = wiring
        self._retry = subscription.retries(wiring.retry)
        self._judge = Judge(subscription, wiring, self._retry)
        own = wiring.subjects.retry(subscription.service, subscription.listener, "")
        self._attempts = Attempts(wiring.driver.attempts, subscription.durable, own)
        self._settler = Settler(
            subscription,
            wiring.driver,
            wiring.subjects,
            wiring.clock,
            self._attempts,
            self._tell_failed,
        )
        self._begins: dict[str, int] = {}
        """The first sequences of the durables that events are left to."""
        self._alone = asyncio.Lock()
        self.circuit = self._circuit()
        """Its breaker, as it stands; None without one."""
        self._suspect: tuple[str, int] | None = None
        """The delivery that is run alone now, or was last."""
        self._gathering = gathering_of(subscription, wiring.clock)
        self._on_pause: Callable[[float], None] | None = None
        layers = layers_of(subscription, wiring)
        self._chain = chain(layers, self._call)
        self.shortcut = self._made_shortcut(layers)
        """The way of what is plain; None where nothing is."""

    @property
    def has_limits(self) -> bool:
        """Whether a limit may ask for a pause."""
        layers = (*self._wiring.middleware, *self._subscription.middleware)
        return any(isinstance(one, Limit) for one in layers)

    def on_pause(self, pause: Callable[[float], None]) -> None:
        """Call ``pause`` with the seconds for which a limit wants no more events."""
        self._on_pause = pause

    def begin(self, delivery: Delivery, aftermath: Aftermath) -> Awaitable[object] | None:
        """Handle a delivery as `__call__` does, as far as nothing has to wait.

        Returns what is left to await, at once and in the same task; None where nothing is.
        """
        rest = NOT_PLAIN if self.shortcut is None else self.shortcut.begin(delivery, aftermath)
        return self(delivery, aftermath=aftermath) if rest is NOT_PLAIN else rest

    async def __call__(
        self,
        delivery: Delivery,
        known: Known | None = None,
        aftermath: Aftermath | None = None,
    ) -> Wait | None:
        """Handle and settle one delivery; never raises but for cancellation.

        Cancelled, the delivery goes back to the server at once, and it isn't an attempt. That of
        an ordered listener isn't settled while it has to be run again: then it returns when, and
        what to hand in with it. ``known`` is what is known of it before. With an ``aftermath``
        it doesn't wait for the server to confirm the acknowledgement of what went well.
        """
        wiring, one = self._wiring, self._subscription
        name = wiring.subjects.event_name(delivery.message.subject) or "unknown"
        if one.left_to and await self._is_left(delivery, name):
            return None
        run = Run(delivery, name, self._attempts.redrive(delivery), known=known)
        wiring.observe(Received(name, one.service, one.listener, delivery.deliveries > 1))
        return await self._finish(run, self._decide(run), aftermath)

    async def _finish(
        self, run: Run, deciding: Awaitable[Decision | Return], aftermath: Aftermath | None
    ) -> Wait | None:
        """Settle a delivery as it is decided; never raises but for cancellation."""
        wiring, one, name = self._wiring, self._subscription, run.name
        try:
            decision = await deciding
            if isinstance(decision, Return):
                await self._settler.step_back(run, decision.delay, park=decision.park)
                wiring.observe(Returned(name, one.service, one.listener))
                return run.wait
            if aftermath is not None and self._settler.can_ack_soon(run, decision):
                self._ack_soon(run, decision, aftermath)
            else:
                await self._settle(run, decision)
        except asyncio.CancelledError:
            await self._settler.hand_back(run)
            wiring.observe(Returned(name, one.service, one.listener))
            raise
        except Exception as exc:  # noqa: BLE001 - told as a signal; unsettled, it would keep its slot
            await self._settler.give_up(run, exc)
            wiring.observe(Stuck(name, one.service, one.listener, exc))
        finally:
            if run.alone:
                self._alone.release()
        return run.wait

    def _made_shortcut(self, layers: Sequence[Middleware]) -> Shortcut | None:
        """Return a way past all that this listener doesn't ask for; None where it asks for much."""
        one = self._subscription
        if (
            self.circuit is not None
            or self._gathering is not None
            or self._settler.parks_keys
            or one.left_to
            or one.delay is not None
        ):
            return None
        around = None if one.takes_context else around_of(layers)
        return Shortcut(one, self._wiring, self._chain, around, self._retry.attempts, self)

    # What a shortcut leaves to us, see `eventbus.shortcut.WholeWay`.

    def go_on(
        self, run: Run, raised: Exception | asyncio.CancelledError, aftermath: Aftermath
    ) -> Awaitable[object]:
        """Return what settles a delivery whose run has raised."""
        return self._finish(run, self._after(run, raised), aftermath)

    async def ack_alone(self, run: Run, decision: Decision, aftermath: Aftermath) -> None:
        """Acknowledge what couldn't be with others; cancelled, the server delivers it again."""
        one = self._subscription
        try:
            await self._settle(run, decision)
        except asyncio.CancelledError:
            self._wiring.observe(Returned(run.name, one.service, one.listener))
            raise
        except Exception as exc:  # noqa: BLE001 - as in `__call__`
            await self._settler.give_up(run, exc)
            self._wiring.observe(Stuck(run.name, one.service, one.listener, exc))
        finally:
            aftermath.ended()

    async def _after(
        self, run: Run, raised: Exception | asyncio.CancelledError
    ) -> Decision | Return:
        assert run.envelope is not None, "run without an envelope"
        run.error = await failed_with(raised, self._subscription.listener)
        if isinstance(run.error, Postpone):
            return self._postponed(run.error)
        return self._judge.judged(run, run.envelope)

    async def _settle(self, run: Run, decision: Decision) -> None:
        outcome = await self._settler.settle(run, decision)
        self._wiring.observe(self._settled(run, decision, outcome))

    def _ack_soon(self, run: Run, decision: Decision, aftermath: Aftermath) -> None:
        def told(known: bool) -> None:
            if known:
                self._wiring.observe(self._settled(run, decision, Outcome.OK))
                aftermath.ended()
            else:
                aftermath.go_on(self.ack_alone(run, decision, aftermath))

        aftermath.began()
        self._settler.ack_soon(run, told)

    async def _is_left(self, delivery: Delivery, name: str) -> bool:
        """Settle what another durable takes because of its priority; False where it is ours.

        Nothing is told of it: that durable's listener handles it.
        """
        other, wiring = self._subscription.left_to.get(name), self._wiring
        if other is None or delivery.message.subject != wiring.subjects.event(name):
            return False  # a retry of ours stays ours
        try:
            begin = self._begins.get(other)
            if begin is None:
                state = await wiring.driver.measure(other)
                if state is None:  # deleted: it takes nothing
                    return False
                begin = self._begins[other] = state.begin
            if delivery.sequence < begin:
                return False
            await delivery.ack()
        except EventBusError:
            await delivery.nak(LOOK_AGAIN)
        return True

    async def hand_back(self, delivery: Delivery, known: Known) -> None:
        """Give back what waited here for its run; never raises."""
        await self._settler.return_waiting(delivery, known)

    def renew(self) -> None:
        """Trust nothing that is remembered: another process may have worked the durable since."""
        self._settler.renew()

    async def _decide(self, run: Run) -> Decision | Return:
        unread = self._judge.unread(run)
        if unread is not None:
            return unread
        envelope = run.envelope
        assert envelope is not None, "decoded without an envelope"
        if self._settler.parks_keys:
            parked = await self._settler.problem(run.delivery)
            if parked:
                return DeadLetter(Reason.KEY_PARKED, parked)
        run.verdict = await self._attempts.judge(run.delivery, run.known)
        wait = (
            self._judge.too_early(run, envelope) if self._subscription.delay is not None else 0.0
        )
        if wait:
            run.early = True
            return Return(wait, park=wait > DELAY_IN_PLACE)
        run.verdict = run.verdict.running(self._wiring.clock.now())
        given_up = self._judge.given_up(run, envelope)
        if given_up is not None and await self._judge.is_certain(given_up, envelope):
            return given_up
        if run.verdict.suspect:
            # One at a time until it is settled: if the process dies meanwhile, it was this one.
            await self._alone.acquire()
            run.alone = True
            self._suspect = run.delivery.stream, run.delivery.sequence
        if run.delivery.lost:
            # It waited too long for the one before; a mark now would be taken for a crash.
            return Return()
        return await self._guarded(run, envelope) or self._judge.judged(run, envelope)

    async def _guarded(self, run: Run, envelope: Envelope) -> Return | None:
        """Run the listener, where its breaker lets it; None where that counts as an attempt."""
        circuit, clock = self.circuit, self._wiring.clock
        ticket = 0 if circuit is None else circuit.begin()
        if ticket is None:
            return Return()
        try:
            if run.verdict.suspect:
                await self._mark(run)
            await self._run(run, envelope)
        except (Exception, asyncio.CancelledError):
            if circuit is not None:
                circuit.let_go(ticket)
            raise
        if isinstance(run.error, Postpone):
            if circuit is not None:
                circuit.let_go(ticket)
            return self._postponed(run.error)
        if circuit is None or circuit.end(ticket, run.error, clock.monotonic()):
            return None
        # Later than the next probe, so that this is another event.
        return Return(circuit.breaker.pause * BEHIND_PROBE)

    async def _mark(self, run: Run) -> None:
        """Mark that the run of a suspect begins, if it still may.

        Raises:
            DriverError: It may not.
        """
        # It has waited: a lease that ended now would make a crash of the mark.
        await run.delivery.in_progress()
        await self._attempts.started(run.delivery, run.verdict)
        if run.delivery.lost:
            await self._attempts.returned(run.delivery, run.verdict)
            raise SettleError(f"'{run.name}' was delivered again before its run could begin")

    def _postponed(self, wanted: Postpone) -> Return:
        """Return how an event goes back that a limit lets wait."""
        try:
            delay = seconds(wanted.after)
        except ValueError:  # a delay that makes no sense must not hold up the event
            delay = 0.0
        if wanted.pause and self._on_pause is not None:
            self._on_pause(delay)
        return Return(delay, park=delay > self._wiring.park_after)

    def _circuit(self) -> Circuit | None:
        one = self._subscription
        if one.breaker is None:
            return None
        circuit = Circuit(one.breaker)

        def changed(state: BreakerState, problem: str) -> None:
            self._wiring.observe(BreakerChanged(one.service, one.listener, state, problem))

        circuit.watch(changed)
        return circuit

    async def _run(self, run: Run, envelope: Envelope) -> None:
        one, wiring = self._subscription, self._wiring
        context = context_of(run, envelope, one, wiring.emit)
        if is_watched(wiring.observe, ListenerStarted):
            name, correlation = context.name, context.correlation_id
            wiring.observe(
                ListenerStarted(
                    name, context.id, one.service, one.listener, context.attempt, correlation
                )
            )
        run.begun = True
        started = wiring.clock.monotonic()
        try:
            with entered(scope_of(envelope, one.place, run.redrive)):
                run.error = await raised_by(self._chain(context), one.listener)
        finally:
            run.duration = wiring.clock.monotonic() - started

    async def _tell_failed(self, run: Run, decision: DeadLetter) -> None:
        """Call the listener's ``failed``, now that the dead letter is stored."""
        one, envelope = self._subscription, run.envelope
        if one.failed is None or envelope is None or decision.reason in _UNREADABLE:
            return
        context = context_of(run, envelope, one, self._wiring.emit)
        error = run.error or GaveUpError(reason=decision.reason, detail=decision.detail)
        # Another place than the listener's: what both emit, even if it is equal, is two events.
        scope = scope_of(envelope, f"{one.place}:failed", run.redrive)
        await tell_failed(one, context, error, scope, self._wiring.observe)

    async def _call(self, context: Context) -> None:
        if self._gathering is None:
            await self._subscription.handler(context.event, context)
            return
        suspect = self._suspect == (context.stream, context.sequence)
        await self._gathering.handle(context, alone=suspect)

    def _settled(self, run: Run, decision: Decision, outcome: Outcome) -> Settled:
        now, attempts = self._wiring.clock.now(), self._retry.attempts
        return settled_of(run, decision, outcome, self._subscription, attempts=attempts, now=now)
