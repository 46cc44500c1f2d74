"""The onion around listeners and emits, one behavior in each module."""
