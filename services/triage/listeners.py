"""Turns each delivery into exactly one event, whose id repeats when the delivery is redelivered."""

from eventbus import Context, EventService, Settings
from schemas.webhook import WebhookReceived
from services.triage.github import meaning

__all__ = ("TriageService",)


class TriageService(EventService):
    """Emits one event per ``webhook.received``."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__("triage", settings=settings)
        self.subscribe(WebhookReceived, triage)


async def triage(event: WebhookReceived, context: Context) -> None:
    """Emit what the delivery means."""
    await context.emit(meaning(event))
