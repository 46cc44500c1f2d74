"""What each GitHub delivery means, and that it is told once."""

from typing import Any

import pytest

from schemas.webhook import WebhookReceived
from services.triage.github import meaning
from tests.services.house import House, Watch, api, deliver, running

REPOSITORY = {"id": 1, "full_name": "ada/engine", "private": False}
SENDER = {"login": "grace", "type": "User"}
URL = "https://git.example/ada/engine"
TICKET = {"id": 77, "number": 12, "title": "It stops", "html_url": f"{URL}/12", "labels": []}
RELEASE = {"id": 5, "tag_name": "v1", "name": None, "html_url": f"{URL}/v1"}
PUSH = {"ref": "refs/heads/main", "before": "a" * 40, "after": "b" * 40, "commits": [{}, {}]}

WHERE = {"repository": "ada/engine", "sender": "grace"}
TICKET_TOLD = {**WHERE, "number": 12, "title": "It stops", "url": f"{URL}/12"}
ISSUE_TOLD = {**TICKET_TOLD, "issue_id": 77}
PULL_TOLD = {**TICKET_TOLD, "pull_request_id": 77}
RELEASE_TOLD = {**WHERE, "release_id": 5, "tag": "v1", "title": None, "url": f"{URL}/v1"}
PUSH_TOLD = {
    **WHERE,
    "ref": "refs/heads/main",
    "before": "a" * 40,
    "after": "b" * 40,
    "commits": 2,
    "forced": False,
}


def received(kind: str, body: Any, provider: str = "github") -> WebhookReceived:
    action = body.get("action") if isinstance(body, dict) else None
    return WebhookReceived(
        provider=provider, kind=kind, delivery_id="d-1", action=action, body=body
    )


def body(action: str | None, **fields: object) -> dict[str, object]:
    common = {"repository": REPOSITORY, "sender": SENDER, **fields}
    return common if action is None else {"action": action, **common}


def merged(merged: bool | None) -> dict[str, object]:
    return {**TICKET, "merged": merged}


@pytest.mark.parametrize(
    ("kind", "delivered", "name", "told"),
    [
        ("issues", body("opened", issue=TICKET), "issue.opened", ISSUE_TOLD),
        ("issues", body("closed", issue=TICKET), "issue.closed", ISSUE_TOLD),
        ("issues", body("reopened", issue=TICKET), "issue.reopened", ISSUE_TOLD),
        (
            "issues",
            body("labeled", issue=TICKET),
            "issue.changed",
            {**ISSUE_TOLD, "kind": "issues", "action": "labeled"},
        ),
        ("pull_request", body("opened", pull_request=TICKET), "pull_request.opened", PULL_TOLD),
        (
            "pull_request",
            body("closed", pull_request=merged(False)),
            "pull_request.closed",
            PULL_TOLD,
        ),
        (
            "pull_request",
            body("closed", pull_request=merged(None)),
            "pull_request.closed",
            PULL_TOLD,
        ),
        (
            "pull_request",
            body("closed", pull_request=merged(True)),
            "pull_request.merged",
            PULL_TOLD,
        ),
        (
            "pull_request",
            body("synchronize", pull_request=merged(True)),
            "pull_request.changed",
            {**PULL_TOLD, "kind": "pull_request", "action": "synchronize"},
        ),
        ("push", body(None, **PUSH), "push.received", PUSH_TOLD),
        ("release", body("published", release=RELEASE), "release.published", RELEASE_TOLD),
        (
            "release",
            body("edited", release=RELEASE),
            "release.changed",
            {**RELEASE_TOLD, "kind": "release", "action": "edited"},
        ),
    ],
)
def test_a_delivery_that_matters_means_one_event(
    kind: str, delivered: dict[str, object], name: str, told: dict[str, object]
) -> None:
    event = meaning(received(kind, delivered))

    assert event.event_spec is not None
    assert (event.event_spec.name, event.model_dump()) == (name, told)


@pytest.mark.parametrize(
    ("kind", "delivered", "action", "reason"),
    [
        ("star", body("created"), "created", "nothing here is interested in this kind"),
        ("issue_comment", body("created", issue=TICKET), "created", "nothing here"),
        ("ping", None, None, "nothing here is interested in this kind"),
        ("issues", None, None, "its body isn't as documented: body"),
        ("issues", [1], None, "its body isn't as documented: body"),
        ("issues", {"action": "opened"}, "opened", "its body isn't as documented: issue, repos"),
        ("issues", body(None, issue=TICKET), None, "its body isn't as documented: action"),
        ("issues", body("opened", issue={**TICKET, "id": "x"}), "opened", "issue.id"),
        ("push", {"repository": REPOSITORY}, None, "after, before, ref"),
    ],
)
def test_any_other_delivery_is_ignored_with_its_kind_its_action_and_the_reason(
    kind: str, delivered: object, action: str | None, reason: str
) -> None:
    event = meaning(received(kind, delivered)).model_dump()

    told = event.pop("reason")
    assert event == {
        "provider": "github",
        "kind": kind,
        "delivery_id": "d-1",
        "action": action,
    }
    assert reason in told


def test_a_provider_that_isnt_known_is_ignored() -> None:
    event = meaning(received("issues", body("opened", issue=TICKET), provider="another"))

    assert event.event_spec is not None
    assert event.event_spec.name == "webhook.ignored"


@pytest.mark.nats
async def test_each_delivery_is_told_once_in_its_own_story(house: House) -> None:
    watch = Watch(house.audit)

    async with running(house.audit, house.triage), api(house.webhooks) as client:
        await deliver(client, "issues", body("opened", issue=TICKET), id="d-1")
        await deliver(client, "issues", body("opened", issue=TICKET), id="d-1")
        await deliver(client, "star", body("created"), id="d-2")
        await watch.until(lambda: len(watch.settled) == 4)

    stories = {
        row.id: [
            (one.name, one.source, one.causation_id)
            for one in house.rows("correlation_id = ? AND id != ?", row.correlation_id, row.id)
        ]
        for row in house.rows("name = 'webhook.received'")
    }
    assert stories == {
        "d-1": [("issue.opened", "triage", "d-1")],
        "d-2": [("webhook.ignored", "triage", "d-2")],
    }
