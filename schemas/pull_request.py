"""What happens to a pull request in a code repository."""

from eventbus.event import Event

__all__ = ("PullRequestChanged", "PullRequestClosed", "PullRequestMerged", "PullRequestOpened")


class _PullRequest(Event):
    pull_request_id: int
    """The provider's id."""
    repository: str
    """``owner/name``."""
    number: int
    title: str
    url: str
    sender: str | None = None
    """Who did it."""


class PullRequestOpened(_PullRequest, name="pull_request.opened", key="pull_request_id"):
    """Somebody opened a pull request."""


class PullRequestClosed(_PullRequest, name="pull_request.closed", key="pull_request_id"):
    """A pull request was closed without being merged."""


class PullRequestMerged(_PullRequest, name="pull_request.merged", key="pull_request_id"):
    """A pull request was merged, which closed it."""


class PullRequestChanged(_PullRequest, name="pull_request.changed", key="pull_request_id"):
    """Anything else happened to a pull request."""

    kind: str
    """What the provider calls the delivery: ``pull_request``."""
    action: str
    """What happened, like ``labeled``."""
