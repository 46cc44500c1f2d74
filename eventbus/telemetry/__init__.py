"""Signals, and what logs, metrics and traces make of them."""
