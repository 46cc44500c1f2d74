"""What GitHub's deliveries mean, as a pure function from delivery to event.

Kinds ``issues``, ``pull_request``, ``push`` and ``release`` have events of their own. Every other
kind is a ``webhook.ignored``, and so is one of these whose body isn't what GitHub documents.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from pydantic import BaseModel, ValidationError

from eventbus import Event
from schemas.issue import IssueChanged, IssueClosed, IssueOpened, IssueReopened
from schemas.pull_request import (
    PullRequestChanged,
    PullRequestClosed,
    PullRequestMerged,
    PullRequestOpened,
)
from schemas.push import PushReceived
from schemas.release import ReleaseChanged, ReleasePublished
from schemas.webhook import WebhookIgnored, WebhookReceived

__all__ = ("meaning",)


def meaning(delivery: WebhookReceived) -> Event:
    """Return the one event that a delivery means; never fails."""
    reader = _READERS.get(delivery.kind) if delivery.provider == "github" else None
    if reader is None:
        return _ignored(delivery, "nothing here is interested in this kind")
    try:
        return reader(delivery)
    except ValidationError as exc:
        fields = {".".join(map(str, one["loc"])) or "body" for one in exc.errors()}
        return _ignored(delivery, f"its body isn't as documented: {', '.join(sorted(fields))}")


class _Repository(BaseModel):
    full_name: str


class _Sender(BaseModel):
    login: str


class _Body(BaseModel):
    repository: _Repository
    sender: _Sender | None = None

    def origin(self) -> dict[str, object]:
        return {
            "repository": self.repository.full_name,
            "sender": self.sender.login if self.sender else None,
        }


class _Ticket(BaseModel):
    id: int
    number: int
    title: str
    html_url: str

    def described(self) -> dict[str, object]:
        return {"number": self.number, "title": self.title, "url": self.html_url}


class _IssueBody(_Body):
    issue: _Ticket


class _Mergeable(_Ticket):
    merged: bool | None = None


class _PullRequestBody(_Body):
    pull_request: _Mergeable


class _Release(BaseModel):
    id: int
    tag_name: str
    name: str | None = None
    html_url: str


class _ReleaseBody(_Body):
    release: _Release


class _PushBody(_Body):
    ref: str
    before: str
    after: str
    forced: bool = False
    commits: tuple[object, ...] = ()


_ISSUES: Mapping[str | None, type[Event]] = MappingProxyType(
    {"opened": IssueOpened, "closed": IssueClosed, "reopened": IssueReopened}
)


def _issue(delivery: WebhookReceived) -> Event:
    body = _IssueBody.model_validate(delivery.body)
    fields = {"issue_id": body.issue.id, **body.issue.described(), **body.origin()}
    return _event(_ISSUES.get(delivery.action), IssueChanged, fields, delivery)


def _pull_request(delivery: WebhookReceived) -> Event:
    body = _PullRequestBody.model_validate(delivery.body)
    found = body.pull_request
    fields = {"pull_request_id": found.id, **found.described(), **body.origin()}
    event: type[Event] | None = None
    match delivery.action:
        case "opened":
            event = PullRequestOpened
        case "closed":
            event = PullRequestMerged if found.merged else PullRequestClosed
        case _:
            pass
    return _event(event, PullRequestChanged, fields, delivery)


def _release(delivery: WebhookReceived) -> Event:
    body = _ReleaseBody.model_validate(delivery.body)
    fields = {
        "release_id": body.release.id,
        "tag": body.release.tag_name,
        "title": body.release.name,
        "url": body.release.html_url,
        **body.origin(),
    }
    event = ReleasePublished if delivery.action == "published" else None
    return _event(event, ReleaseChanged, fields, delivery)


def _push(delivery: WebhookReceived) -> Event:
    body = _PushBody.model_validate(delivery.body)
    return PushReceived.model_validate(
        {
            "ref": body.ref,
            "before": body.before,
            "after": body.after,
            "commits": len(body.commits),
            "forced": body.forced,
            **body.origin(),
        }
    )


def _event(
    event: type[Event] | None,
    changed: type[Event],
    fields: Mapping[str, object],
    delivery: WebhookReceived,
) -> Event:
    """Return the event, or that something changed, which says what."""
    if event is not None:
        return event.model_validate(fields)
    return changed.model_validate(
        {**fields, "kind": delivery.kind, "action": delivery.action},
    )


def _ignored(delivery: WebhookReceived, reason: str) -> WebhookIgnored:
    return WebhookIgnored(
        provider=delivery.provider,
        kind=delivery.kind,
        delivery_id=delivery.delivery_id,
        action=delivery.action,
        reason=reason,
    )


_READERS: Mapping[str, Callable[[WebhookReceived], Event]] = MappingProxyType(
    {"issues": _issue, "pull_request": _pull_request, "push": _push, "release": _release}
)
