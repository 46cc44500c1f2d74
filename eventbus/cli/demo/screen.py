"""What the demo shows while it runs: a line that changes on a terminal, else plain lines."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType

if TYPE_CHECKING:
    from rich.status import Status

__all__ = ("Screen",)

WIDTH = 100
"""Columns of a file or a pipe, which say nothing of their own."""


class Screen:
    """Prints steps, and how far the current one is."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        if not self._console.is_terminal:
            self._console.width = WIDTH
        self._status: Status | None = None
        self._last = ""

    @contextmanager
    def live(self) -> Generator[None]:
        """Show a spinner within, on a terminal."""
        if not self._console.is_terminal:
            yield
            return
        with self._console.status("") as self._status:
            yield
        self._status = None

    def step(self, text: str) -> None:
        """Say what begins now."""
        self.lines([f"==> {text}"])

    def now(self, text: str) -> None:
        """Say how far it is; the same text again isn't repeated."""
        if text == self._last:
            return
        self._last = text
        if self._status is not None:
            self._status.update(text)
        else:
            self.lines([f"    {text}"])

    def lines(self, lines: Iterable[str]) -> None:
        """Print lines as they are."""
        for line in lines:
            self._console.print(line, markup=False, soft_wrap=True)

    def show(self, what: RenderableType) -> None:
        """Print a table."""
        self._console.print(what)
