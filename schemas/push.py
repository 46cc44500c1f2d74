"""What is pushed to a code repository."""

from eventbus.event import Event

__all__ = ("PushReceived",)


class PushReceived(Event, name="push.received", key="repository"):
    """A branch or tag was created, moved or deleted."""

    repository: str
    """``owner/name``."""
    ref: str
    """Like ``refs/heads/main``."""
    before: str
    after: str
    """The commit it points to now; zeros where it was deleted."""
    commits: int
    """How many commits the delivery lists; the provider cuts long lists."""
    forced: bool = False
    sender: str | None = None
    """Who did it."""
