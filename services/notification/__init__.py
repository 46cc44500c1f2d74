"""The notification service: mails to people about what happened to them."""

from services.notification.listeners import NotificationService

__all__ = ("events",)

events = NotificationService()
