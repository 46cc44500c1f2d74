"""`Judge`: what becomes of a delivery, before its listener runs and after; it settles nothing."""

from datetime import timedelta

from eventbus import headers as h
from eventbus.calling import read_for
from eventbus.delivery import Ack, DeadLetter, Decision, Drop, Nak, Reason
from eventbus.envelope import Envelope
from eventbus.errors import CodecError, DriverError, SchemaError, Signal, UnknownEventError
from eventbus.retry import Retry
from eventbus.settlement import Run
from eventbus.subscription import Subscription
from eventbus.wiring import Wiring

__all__ = ("HANDLED", "UNKNOWN_DELAY", "UNKNOWN_PATIENCE", "Judge")

UNKNOWN_PATIENCE = timedelta(minutes=10)
"""How long an event that isn't declared here waits for a deploy that declares it."""
UNKNOWN_DELAY = 15.0
HANDLED = Ack()


class Judge:
    """Decides about the deliveries of one subscription."""

    def __init__(self, subscription: Subscription, wiring: Wiring, retry: Retry) -> None:
        self._subscription = subscription
        self._wiring = wiring
        self._retry = retry

    def unread(self, run: Run) -> Decision | None:
        """Fill in the envelope; return what becomes of a message that gives none."""
        message, wiring = run.delivery.message, self._wiring
        stored = run.delivery.stored_at
        try:
            run.envelope = read_for(
                self._subscription, message, run.name, wiring.registry, received=stored
            )
        except UnknownEventError as exc:
            run.error = exc
            # A rolling deploy: the producer is ahead of us, or this process is the old one.
            if wiring.clock.now() - stored < UNKNOWN_PATIENCE:
                return Nak(UNKNOWN_DELAY)
            return DeadLetter(Reason.UNKNOWN_EVENT, str(exc))
        except (CodecError, SchemaError) as exc:
            run.error = exc
            return DeadLetter(Reason.INVALID, str(exc))
        if not self._subscription.takes(run.envelope.event):
            return Drop("the state was deleted, and the listener doesn't take StateDeleted")
        return None

    def too_early(self, run: Run, envelope: Envelope) -> float:
        """Return how long an event has to wait that came as it was emitted; 0 for not at all."""
        delay, subjects = self._subscription.delay, self._wiring.subjects
        if delay is None or not run.delivery.message.subject.startswith(subjects.prefix):
            return 0.0
        try:
            wanted = delay(envelope.event)
        except Exception:  # noqa: BLE001 - a delay that can't be told must not hold up the event
            return 0.0
        age = (self._wiring.clock.now() - run.delivery.stored_at).total_seconds()
        return max(0.0, wanted - age)

    def given_up(self, run: Run, envelope: Envelope) -> DeadLetter | None:
        """Return why an event isn't run at all any more; None where it is."""
        verdict = run.verdict
        if verdict.attempt > self._retry.attempts or (verdict.suspect and self._is_over(run)):
            return DeadLetter(Reason.CRASH, f"no outcome after {verdict.attempt - 1} attempts")
        if envelope.expires is None:
            return None
        # Where our clock is behind, it hasn't been earlier than when the server stored it.
        now = max(self._wiring.clock.now(), run.delivery.stored_at)
        if now < envelope.expires:
            return None
        return DeadLetter(Reason.EXPIRED, f"expired at {h.render_time(envelope.expires)}")

    async def is_certain(self, letter: DeadLetter, envelope: Envelope) -> bool:
        """Ask the server's clock before an event has expired: ours may be wrong."""
        driver, expires = self._wiring.driver, envelope.expires
        if letter.reason is not Reason.EXPIRED or expires is None:
            return True
        if not driver.features.schedules:
            return True
        try:
            return await driver.schedules.now() >= expires
        except DriverError:
            return True  # nobody else can say; a dead letter isn't lost

    def judged(self, run: Run, envelope: Envelope) -> Decision:
        """Return what becomes of an event after its run."""
        if run.error is None:
            return HANDLED
        if not isinstance(run.error, Signal):
            run.verdict = run.verdict.raised()
        decision = self._retry.decide(
            run.error,
            run.verdict.attempt,
            chance=self._wiring.chance(),
            park_after=self._wiring.park_after,
            elapsed=self._elapsed(run),
        )
        return self._subscription.stops.judge(
            decision,
            run.error,
            envelope.event,
            raised=run.verdict.history.raised,
            now=self._wiring.clock.now(),
        )

    def _is_over(self, run: Run) -> bool:
        """Tell whether the time for its attempts is over."""
        one, envelope = self._subscription, run.envelope
        if envelope is not None and one.stops.is_over(envelope.event, self._wiring.clock.now()):
            return True
        return one.retry_for is not None and self._elapsed(run) > one.retry_for

    def _elapsed(self, run: Run) -> float:
        """Return the seconds since the first attempt began, wherever that was."""
        now = self._wiring.clock.now()
        return (now - (run.verdict.history.began or now)).total_seconds()
