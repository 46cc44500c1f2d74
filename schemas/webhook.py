"""What other systems call us for, before and after we know what it means."""

from pydantic import JsonValue

from eventbus.event import Event

__all__ = ("WebhookIgnored", "WebhookReceived")


class WebhookReceived(Event, name="webhook.received", key="delivery_id"):
    """A delivery came in whose signature is right."""

    provider: str
    """Who sent it: ``github``."""
    kind: str
    """What the provider calls it, like ``pull_request``."""
    delivery_id: str
    """The provider's id of the delivery; it is the event's id as well."""
    action: str | None = None
    """What happened to it, like ``opened``, where the body says so."""
    body: JsonValue
    """The body as it came, as a JSON value."""


class WebhookIgnored(Event, name="webhook.ignored", key="delivery_id"):
    """A delivery that nothing here is interested in."""

    provider: str
    kind: str
    delivery_id: str
    action: str | None = None
    reason: str
    """Why no other event came of it."""
