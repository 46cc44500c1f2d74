"""`Watched`: the part of a driver that tells of what happens to it."""

from eventbus.drivers.base import DriverSignal, Notify

__all__ = ("Watched",)


class Watched:
    """Tells whoever watches of each signal."""

    def __init__(self) -> None:
        self._watchers: list[Notify] = []

    def watch(self, notify: Notify) -> None:
        """Tell ``notify`` of every later signal; call it before entering."""
        self._watchers.append(notify)

    def notify(self, signal: DriverSignal) -> None:
        """Tell all that watch."""
        for notify in self._watchers:
            notify(signal)
