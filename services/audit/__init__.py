"""The audit service: everything that ever happened."""

from services.audit.listeners import AuditService

__all__ = ("events",)

events = AuditService()
