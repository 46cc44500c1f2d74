"""The webhooks service: the gateway through which other systems reach the bus."""

from services.webhooks.app import WebhooksService

__all__ = ("events",)

events = WebhooksService()
