"""No outbox, through psycopg."""

from bench.outboxes.bare import Bare

__all__ = ("OUTBOX",)

OUTBOX = Bare("psycopg")
