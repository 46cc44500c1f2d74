"""The service behind ``eventbus relay``: it emits nothing, and relays what all services emitted."""

from eventbus.relay.job import EVERYONE
from eventbus.service import EventService

__all__ = ("events",)

events = EventService("relay", relay=EVERYONE)
