"""The gateway: what it takes, what it refuses, and when it says so."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from eventbus.embedded import NatsServer
from eventbus.errors import SettingsError
from eventbus.settings import Settings
from services.webhooks import app
from services.webhooks.app import WebhooksService, WebhooksSettings, signature
from tests.services.house import SECRET, House, Watch, api, deliver, running

pytestmark = pytest.mark.nats

BODY = {"action": "opened", "number": 1.5, "nested": [{"ünïcode": None}], "big": 2**70}


@pytest.fixture
async def client(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with api(house.webhooks) as client:
        yield client


async def test_a_signed_delivery_is_an_event_that_holds_the_body_as_it_came(house: House) -> None:
    watch = Watch(house.audit)

    async with running(house.audit), api(house.webhooks) as client:
        answer = await deliver(client, "issues", BODY, headers={"X-Correlation-ID": "story-1"})
        await watch.until(lambda: len(watch.settled) == 1)

    [row] = house.rows()
    assert (answer.status_code, answer.json()) == (202, {"id": "d-1", "duplicate": False})
    assert (row.id, row.name, row.correlation_id) == ("d-1", "webhook.received", "story-1")
    assert row.payload == {
        "provider": "github",
        "kind": "issues",
        "delivery_id": "d-1",
        "action": "opened",
        "body": BODY,
    }


async def test_a_repeated_delivery_is_accepted_and_stored_once(house: House) -> None:
    watch = Watch(house.audit)

    async with running(house.audit), api(house.webhooks) as client:
        answers = [await deliver(client, "ping", BODY) for _ in range(2)]
        await deliver(client, "ping", BODY, id="d-2")
        await watch.until(lambda: len(watch.settled) == 2)

    assert [one.status_code for one in answers] == [202, 202]
    assert [one.json()["duplicate"] for one in answers] == [False, True]
    assert [row.id for row in house.rows()] == ["d-1", "d-2"]


async def test_another_delivery_under_the_same_id_is_a_conflict(client: httpx.AsyncClient) -> None:
    await deliver(client, "ping", BODY)

    answer = await deliver(client, "ping", {"another": "body"})

    assert (answer.status_code, answer.json()["error"]) == (409, "driver.id_conflict")


@pytest.mark.parametrize(
    "given",
    [
        "",
        "sha256=",
        "sha256=" + "0" * 64,
        signature(b"another secret", json.dumps(BODY).encode()),
        signature(SECRET.encode(), b"another body"),
        signature(SECRET.encode(), json.dumps(BODY).encode()).removeprefix("sha256="),
    ],
)
async def test_a_signature_that_isnt_right_is_a_401(client: httpx.AsyncClient, given: str) -> None:
    answer = await deliver(client, "ping", BODY, headers={"X-Hub-Signature-256": given})

    assert answer.status_code == 401
    assert "X-Hub-Signature-256" in answer.json()["detail"]


async def test_a_signature_that_isnt_even_text_is_a_401(client: httpx.AsyncClient) -> None:
    headers = {"X-GitHub-Event": "ping", "X-GitHub-Delivery": "d-1"}

    answer = await client.post(
        "/webhooks/github",
        content=b"{}",
        headers={**headers, "X-Hub-Signature-256": b"sha256=\xff\xfe"},  # type: ignore[dict-item]
    )

    assert answer.status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"payload=%7B%7D",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b"{} {}",
        b'"\xff"',
        b"1,2",
        b"1],[2",
        b"[" * 201 + b"]" * 201,
        b'"\\ud800"',
    ],
)
async def test_a_body_that_isnt_json_is_a_400(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await deliver(client, "ping", body)

    assert (answer.status_code, answer.json()["detail"]) == (400, "the body isn't JSON")


@pytest.mark.parametrize("body", [b"null", b"[]", b'"text"', b" 1 ", b"[" * 200 + b"]" * 200])
async def test_any_json_is_taken_and_can_be_read_by_a_listener(house: House, body: bytes) -> None:
    watch = Watch(house.audit, house.triage)

    async with running(house.audit, house.triage), api(house.webhooks) as client:
        answer = await deliver(client, "ping", body)
        await watch.until(lambda: len(watch.settled) == 3)

    assert answer.status_code == 202
    assert [one.outcome.value for one in watch.settled] == ["ok", "ok", "ok"]
    assert house.rows("name = 'webhook.received'")[0].payload["body"] == json.loads(body)  # type: ignore[index]


@pytest.mark.parametrize("missing", ["X-GitHub-Event", "X-GitHub-Delivery"])
@pytest.mark.parametrize("value", ["", "two words", "x" * 129])
async def test_a_header_that_is_missing_or_odd_is_a_400(
    client: httpx.AsyncClient, missing: str, value: str
) -> None:
    answer = await deliver(client, "ping", BODY, headers={missing: value})

    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(missing)


async def test_a_million_bytes_are_taken_and_one_more_is_a_413(client: httpx.AsyncClient) -> None:
    largest = b'"' + b"x" * 999_998 + b'"'

    taken = await deliver(client, "ping", largest, id="d-1")
    refused = await deliver(client, "ping", largest + b" ", id="d-2")

    assert (taken.status_code, refused.status_code) == (202, 413)


async def test_a_body_over_the_servers_limit_is_a_413_with_its_numbers(tmp_path: Path) -> None:
    with NatsServer(config="max_payload: 65536") as server:
        async with api(House(Settings(nats_url=server.url), tmp_path).webhooks) as client:
            taken = await deliver(client, "ping", b'"' + b"x" * 50_000 + b'"', id="d-1")
            refused = await deliver(client, "ping", b'"' + b"x" * 70_000 + b'"', id="d-2")

    assert (taken.status_code, refused.status_code) == (202, 413)
    assert refused.json()["error"] == "driver.payload_too_large"
    assert "the limit is 61440" in refused.json()["detail"]


@pytest.mark.eventbus("real")
async def test_the_answer_waits_until_the_server_has_stored_the_event(
    nats_server: NatsServer, client: httpx.AsyncClient
) -> None:
    async with asyncio.TaskGroup() as group:
        nats_server.pause()
        answer = group.create_task(deliver(client, "ping", BODY))
        early, _ = await asyncio.wait({answer}, timeout=0.5)
        nats_server.resume()

    assert early == set()
    assert answer.result().status_code == 202


async def test_a_bus_that_is_gone_is_a_503_and_the_repeat_is_taken(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    house = House(
        Settings(nats_url=nats_server.url), tmp_path, emit_timeout=0.5, publish_timeout=0.2
    )

    async with api(house.webhooks) as client:
        nats_server.kill()
        refused = await deliver(client, "ping", BODY)
        nats_server.restart()
        again = refused
        for _ in range(40):
            again = await deliver(client, "ping", BODY)
            if again.status_code == 202:
                break

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert again.status_code == 202


@pytest.mark.eventbus("real")
async def test_a_bus_that_is_slow_is_a_503_before_github_hangs_up(
    nats_server: NatsServer, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "ANSWER_WITHIN", 0.3)

    nats_server.pause()
    async with asyncio.timeout(5):
        refused = await deliver(client, "ping", BODY)
    nats_server.resume()
    monkeypatch.undo()
    again = await deliver(client, "ping", BODY)

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert again.status_code == 202


async def test_it_doesnt_start_without_a_secret(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTBUS_NATS_URL", nats_server.url)
    monkeypatch.delenv("EVENTBUS_WEBHOOK_SECRET", raising=False)
    service = WebhooksService()

    with pytest.raises(SettingsError, match="EVENTBUS_WEBHOOK_SECRET isn't set"):
        await service.start()


async def test_it_reads_the_secret_when_it_starts(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = WebhooksService()
    monkeypatch.setenv("EVENTBUS_NATS_URL", nats_server.url)
    monkeypatch.setenv("EVENTBUS_WEBHOOK_SECRET", SECRET)

    async with api(service) as client:
        answer = await deliver(client, "ping", BODY)

    assert answer.status_code == 202


def test_the_secret_isnt_shown() -> None:
    assert SECRET not in repr(WebhooksSettings(webhook_secret=SECRET))  # type: ignore[arg-type]
