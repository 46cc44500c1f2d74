"""Brings the events of an outbox to the stream."""
