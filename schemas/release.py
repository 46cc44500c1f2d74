"""What happens to a release of a code repository."""

from eventbus.event import Event

__all__ = ("ReleaseChanged", "ReleasePublished")


class _Release(Event):
    release_id: int
    """The provider's id."""
    repository: str
    """``owner/name``."""
    tag: str
    title: str | None = None
    url: str
    sender: str | None = None
    """Who did it."""


class ReleasePublished(_Release, name="release.published", key="release_id"):
    """A release is out."""


class ReleaseChanged(_Release, name="release.changed", key="release_id"):
    """Anything else happened to a release."""

    kind: str
    """What the provider calls the delivery: ``release``."""
    action: str
    """What happened, like ``edited``."""
