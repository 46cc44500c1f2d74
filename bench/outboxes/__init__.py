"""Outboxes on PostgreSQL, compared: one module for each contestant, with its `OUTBOX`."""
