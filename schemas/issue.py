"""What happens to an issue in a code repository."""

from eventbus.event import Event

__all__ = ("IssueChanged", "IssueClosed", "IssueOpened", "IssueReopened")


class _Issue(Event):
    issue_id: int
    """The provider's id; issues keep it when they move to another repository."""
    repository: str
    """``owner/name``."""
    number: int
    title: str
    url: str
    sender: str | None = None
    """Who did it."""


class IssueOpened(_Issue, name="issue.opened", key="issue_id"):
    """Somebody opened an issue."""


class IssueClosed(_Issue, name="issue.closed", key="issue_id"):
    """An issue was closed."""


class IssueReopened(_Issue, name="issue.reopened", key="issue_id"):
    """A closed issue is open again."""


class IssueChanged(_Issue, name="issue.changed", key="issue_id"):
    """Anything else happened to an issue."""

    kind: str
    """What the provider calls the delivery: ``issues``."""
    action: str
    """What happened, like ``labeled``."""
