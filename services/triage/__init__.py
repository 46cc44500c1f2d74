"""The triage service: what a webhook's delivery means to us."""

from services.triage.listeners import TriageService

__all__ = ("events",)

events = TriageService()
