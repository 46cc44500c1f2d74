"""Typed events between Python microservices, on NATS JetStream, that never get lost without a trace."""

from typing import TYPE_CHECKING

from eventbus.batch import Batch, BatchContext
from eventbus.clock import Clock
from eventbus.drivers.base import Driver, Receipt
from eventbus.envelope import Envelope
from eventbus.errors import (
    BackpressureError,
    ConfigurationError,
    Discard,
    DriverError,
    EmitUnknown,
    EventBusError,
    InvalidEventError,
    Reject,
    RetryLater,
    SchemaError,
    UnknownEventError,
)
from eventbus.event import Data, Event, UnknownEvent
from eventbus.eventmap import EventMap
from eventbus.kinds import DomainEvent, NotificationEvent, StateDeleted, StateEvent
from eventbus.listener import Listener
from eventbus.middleware.base import Context, EmitMiddleware, Middleware
from eventbus.middleware.breaker import Breaker
from eventbus.query import Query
from eventbus.registry import Registry
from eventbus.retry import Retry
from eventbus.service import EventService
from eventbus.subscription import Subscription
from eventbus.thread import in_loop, in_thread
from eventbus.upcast import upcast

if TYPE_CHECKING:
    from eventbus.settings import Settings

__version__ = "0.1.0"

__all__ = (
    "BackpressureError",
    "Batch",
    "BatchContext",
    "Breaker",
    "Clock",
    "ConfigurationError",
    "Context",
    "Data",
    "Discard",
    "DomainEvent",
    "Driver",
    "DriverError",
    "EmitMiddleware",
    "EmitUnknown",
    "Envelope",
    "Event",
    "EventBusError",
    "EventMap",
    "EventService",
    "InvalidEventError",
    "Listener",
    "Middleware",
    "NotificationEvent",
    "Query",
    "Receipt",
    "Registry",
    "Reject",
    "Retry",
    "RetryLater",
    "SchemaError",
    "Settings",
    "StateDeleted",
    "StateEvent",
    "Subscription",
    "UnknownEvent",
    "UnknownEventError",
    "__version__",
    "in_loop",
    "in_thread",
    "upcast",
)


def __getattr__(name: str) -> object:
    """Load `Settings` when it is first asked for: pydantic-settings is slow to import."""
    if name == "Settings":
        from eventbus.settings import Settings

        return Settings
    raise AttributeError(f"module 'eventbus' has no attribute {name!r}")
