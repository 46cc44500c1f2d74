"""Nobody waits for the server to confirm what went well, and nothing is told before it has."""

from collections.abc import Callable
from typing import Any

import pytest

from eventbus.delivery import Outcome
from eventbus.errors import SettleError
from eventbus.telemetry.signals import Settled, Stuck
from tests.unit.bench import Bench, UserCreated, arriving
from tests.unit.conftest import Afterwards, FakeDelivery


class Soon(FakeDelivery):
    """A delivery that can be acknowledged with others."""

    told: Callable[[bool], None] | None = None

    def ack_soon(self, done: Callable[[bool], None]) -> None:
        self.told = done


async def listen(event: UserCreated) -> None: ...


async def fail(event: UserCreated) -> None:
    raise RuntimeError("broken")


def soon(bench: Bench, **changes: Any) -> Soon:
    return Soon(arriving(), journal=bench.driver.journal, **changes)


def endings(bench: Bench) -> list[Settled | Stuck]:
    return [one for one in bench.told if isinstance(one, Settled | Stuck)]


async def test_an_event_is_settled_once_the_server_has_confirmed(bench: Bench) -> None:
    delivery, aftermath = soon(bench), Afterwards()

    await bench.dispatcher(listen)(delivery, aftermath=aftermath)
    assert (endings(bench), aftermath.open) == ([], 1)
    assert delivery.told is not None
    delivery.told(True)

    (settled,) = endings(bench)
    assert isinstance(settled, Settled)
    assert (settled.outcome, aftermath.open, aftermath.left) == (Outcome.OK, 0, [])


async def test_what_the_server_did_not_confirm_is_acknowledged_alone(bench: Bench) -> None:
    delivery, aftermath = soon(bench), Afterwards()

    await bench.dispatcher(listen)(delivery, aftermath=aftermath)
    assert delivery.told is not None
    delivery.told(False)
    (alone,) = aftermath.left
    assert (endings(bench), aftermath.open) == ([], 1)
    await alone

    assert bench.driver.journal == ["ack"]
    assert [type(one) for one in endings(bench)] == [Settled]
    assert aftermath.open == 0


async def test_what_can_not_be_acknowledged_alone_either_is_stuck(bench: Bench) -> None:
    delivery, aftermath = soon(bench, fails={"ack": SettleError("gone")}), Afterwards()

    await bench.dispatcher(listen)(delivery, aftermath=aftermath)
    assert delivery.told is not None
    delivery.told(False)
    await aftermath.left[0]

    assert [type(one) for one in endings(bench)] == [Stuck]
    assert aftermath.open == 0


@pytest.mark.parametrize(
    ("listener", "changes", "options"),
    [
        (fail, {}, {}),
        (listen, {"deliveries": 2}, {}),
    ],
)
async def test_everything_else_is_settled_at_once(
    bench: Bench, listener: Any, changes: dict[str, Any], options: dict[str, Any]
) -> None:
    delivery, aftermath = soon(bench, **changes), Afterwards()

    await bench.dispatcher(listener, **options)(delivery, aftermath=aftermath)

    assert delivery.told is None
    assert len(endings(bench)) == 1
    assert aftermath.open == 0
