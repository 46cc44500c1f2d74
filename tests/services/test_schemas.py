"""The contract between the services: which events there are."""

from eventbus import Registry
from schemas.user import UserCreated


def test_these_are_the_events() -> None:
    registry = Registry()

    registry.discover("schemas")

    assert registry.names() == (
        "email.sent",
        "follow_up.due",
        "issue.changed",
        "issue.closed",
        "issue.opened",
        "issue.reopened",
        "order.created",
        "payment.completed",
        "payment.failed",
        "pull_request.changed",
        "pull_request.closed",
        "pull_request.merged",
        "pull_request.opened",
        "push.received",
        "release.changed",
        "release.published",
        "statement.due",
        "statement.made",
        "stock.refused",
        "stock.released",
        "stock.reserved",
        "user.created",
        "user.deleted",
        "user.login",
        "user.updated",
        "vendor.created",
        "vendor.status.changed",
        "webhook.ignored",
        "webhook.received",
    )


def test_a_user_needs_an_id_and_an_address_and_nothing_else() -> None:
    required = {name for name, field in UserCreated.model_fields.items() if field.is_required()}

    assert required == {"user_id", "email"}
