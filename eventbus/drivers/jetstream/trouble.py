"""`Trouble`: what a consumer suffers from, and whether it lasts."""

import time

__all__ = ("Trouble",)

TROUBLE = 5.0
"""Trouble that lasts longer than this is a problem of the service."""


class Trouble:
    """What a consumer suffers from, and since when."""

    def __init__(self) -> None:
        self._problem = ""
        self._since = 0.0

    def __bool__(self) -> bool:
        """Tell whether there is any."""
        return bool(self._problem)

    def begin(self, problem: str) -> None:
        """Take note of a problem; the first one tells since when."""
        if not self._problem:
            self._since = time.monotonic()
        self._problem = problem

    def end(self) -> str:
        """Return what it was, empty for nothing, and forget it."""
        problem, self._problem = self._problem, ""
        return problem

    @property
    def lasting(self) -> str:
        """What it is, once it has lasted; safe to ask from any thread."""
        return self._problem if time.monotonic() - self._since > TROUBLE else ""
