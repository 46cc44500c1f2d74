"""Transports: the seam, and the drivers behind it."""
