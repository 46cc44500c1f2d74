"""Real deliveries of GitHub, signed and POSTed, through gateway, triage and audit."""

import asyncio
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.services.house import House, Row, Watch, api, deliver, running

pytestmark = [pytest.mark.nats, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
FILE = ROOT / os.environ.get("EVENTBUS_TEST_DELIVERIES", "../shared/data/github-deliveries.ndjson")
OWN = {
    "issues": "issue.",
    "pull_request": "pull_request.",
    "push": "push.received",
    "release": "release.",
}


@pytest.mark.skipif(
    not FILE.is_file(),
    reason=f"no deliveries at {FILE}; set EVENTBUS_TEST_DELIVERIES to their file",
)
async def test_every_real_delivery_crosses_gateway_triage_and_audit_in_one_story(
    house: House,
) -> None:
    deliveries = [json.loads(line) for line in FILE.read_text().splitlines()]
    posted = {f"delivery-{number}": one for number, one in enumerate(deliveries)}
    watch, triaged = Watch(house.audit), Watch(house.triage)

    async with running(house.audit, house.triage), api(house.webhooks) as client:
        answers = await _post(client, posted)
        await watch.until(lambda: len(watch.settled) >= 2 * len(posted), seconds=40)

    rows = house.rows()
    received = {row.id: row for row in rows if row.name == "webhook.received"}
    followers = [row for row in rows if row.name != "webhook.received"]
    assert Counter(answers) == {202: len(posted)}
    assert len({row.id for row in rows}) == len(rows) == 2 * len(posted)
    assert received.keys() == posted.keys()
    assert len({row.correlation_id for row in received.values()}) == len(posted)
    assert {id: _held(row)["body"] for id, row in received.items()} == {
        id: one["payload"] for id, one in posted.items()
    }
    assert Counter(row.causation_id for row in followers) == Counter(posted.keys())
    for row in followers:
        assert row.causation_id is not None
        cause = received[row.causation_id]
        assert row.correlation_id == cause.correlation_id
        assert row.name.startswith(OWN.get(posted[cause.id]["event"], "webhook.ignored")), row
    assert {one.outcome.value for one in (*watch.settled, *triaged.settled)} == {"ok"}


async def _post(client: httpx.AsyncClient, posted: dict[str, Any]) -> list[int]:
    """POST as GitHub would: several at a time."""
    lines = asyncio.Semaphore(8)

    async def post(id: str, delivery: Any) -> int:
        async with lines:
            answer = await deliver(client, delivery["event"], delivery["payload"], id=id)
            return answer.status_code

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(post(id, one)) for id, one in posted.items()]
    return [task.result() for task in tasks]


def _held(row: Row) -> dict[str, Any]:
    held = row.payload
    assert isinstance(held, dict)
    return held
