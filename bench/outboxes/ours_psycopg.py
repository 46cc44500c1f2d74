"""Ours through psycopg, the driver that it takes unless told otherwise."""

from bench.outboxes.ours import Ours

__all__ = ("OUTBOX",)

OUTBOX = Ours("psycopg")
