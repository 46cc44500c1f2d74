"""`Wiring`: what the listeners of a service share, and the layers that stand around each of them."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from eventbus.clock import Clock
from eventbus.drivers.atomic import is_atomic
from eventbus.drivers.base import Driver
from eventbus.errors import UnsupportedError
from eventbus.gathering import Gathering
from eventbus.limits import Limits
from eventbus.middleware.atomic import Together
from eventbus.middleware.base import Emit, Middleware
from eventbus.middleware.limit import Layer, Limit
from eventbus.middleware.quick import Quick
from eventbus.middleware.timeout import Timeout
from eventbus.registry import Registry
from eventbus.retry import Retry
from eventbus.subject import Subjects
from eventbus.subscription import Subscription
from eventbus.telemetry.signals import Observer

__all__ = ("Wiring", "gathering_of", "layers_of")


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the dispatchers of one service share."""

    driver: Driver
    registry: Registry
    subjects: Subjects
    observe: Observer
    clock: Clock
    emit: Emit
    middleware: tuple[Layer, ...]
    """Around every listener of the service; the first is the outermost."""
    retry: Retry
    """Where a subscription declares none."""
    park_after: float
    inbox: Callable[[Subscription], Layer] | None = None
    """Gives a listener its inbox."""
    chance: Callable[[], float] = field(default=random.random)
    """A number in [0, 1) for jitter."""


def layers_of(one: Subscription, wiring: Wiring) -> list[Middleware]:
    """Return what stands around a listener, the outermost first.

    Raises:
        DeclarationError: A limit goes by a field that an event of the listener doesn't have.
        UnsupportedError: It has a limit, and the driver no place to keep it; or it is atomic, and
            the driver isn't.
    """
    retry = one.retries(wiring.retry)
    layers: list[Layer] = [Timeout(_limit(one)), *wiring.middleware]
    if retry.quick:
        layers.append(Quick(retry, wiring.clock, wiring.chance))
    layers.extend(one.middleware)
    if one.inbox is not None and wiring.inbox is not None:
        layers.append(wiring.inbox(one))  # innermost: each run is a transaction of its own
    if one.atomic:
        layers.append(_together(one, wiring))
    return [_bound(layer, one, wiring) for layer in layers]


def _together(one: Subscription, wiring: Wiring) -> Together:
    driver = wiring.driver
    if not is_atomic(driver):
        raise UnsupportedError(
            driver=driver.name,
            feature=f"atomic batch, which listener '{one.listener}' asks for",
            remedy="drop atomic=True, or use the driver 'jetstream' or 'memory'",
        )
    place = partial(wiring.subjects.inbox, one.service, one.listener)
    return Together(driver, place, one.durable, again=one.again)


def _limit(one: Subscription) -> float:
    """Return how long one event may take; in a batch it may wait for the one before."""
    return one.timeout if one.batch is None else 2 * one.timeout + one.batch.wait


def gathering_of(one: Subscription, clock: Clock) -> Gathering | None:
    """Return what gathers a listener's batches; None where it takes its events one by one."""
    if one.batch is None or one.batch_handler is None:
        return None
    return Gathering(
        one.batch_handler,
        one.batch,
        limit=one.concurrency,
        timeout=one.timeout,
        place=one.place,
        clock=clock,
    )


def _bound(layer: Layer, one: Subscription, wiring: Wiring) -> Middleware:
    if not isinstance(layer, Limit):
        return layer
    layer.check(one.listener, one.accepts)
    return layer.bind(Limits(wiring.driver.limits, one.group, wiring.clock))
