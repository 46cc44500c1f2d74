"""What the demo shows while it runs: a line that changes on a terminal, else plain lines."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status

__all__ = ("Screen",)


class Screen:
    """Prints steps, and how far the current one is."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._status: Status | None = None
        self._last = ""

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show a spinner within, on a terminal."""
        if not self.console.is_terminal:
            yield
            return
        with self.console.status("") as self._status:
            yield
        self._status = None

    def step(self, text: str) -> None:
        """Say what begins now."""
        self.console.print(f"==> {text}", markup=False, soft_wrap=True)

    def now(self, text: str) -> None:
        """Say how far it is; the same text again isn't repeated."""
        if text == self._last:
            return
        self._last = text
        if self._status is not None:
            self._status.update(text)
        else:
            self.console.print(f"    {text}", markup=False, soft_wrap=True)
