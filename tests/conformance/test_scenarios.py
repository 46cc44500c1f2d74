"""Each scenario gives the same history in memory and on a real server."""

import asyncio
import importlib
import itertools
import pkgutil

import pytest

from eventbus import Settings
from eventbus.embedded import NatsServer
from tests.conformance import scenarios
from tests.conformance.stage import MemoryStage, RealStage, Stage

_NUMBERS = itertools.count(1)
AT_ONCE = 8
SCENARIOS = sorted(one.name for one in pkgutil.iter_modules(scenarios.__path__))


async def played(name: str, stage: Stage) -> list[str]:
    scenario = importlib.import_module(f"tests.conformance.scenarios.{name}")
    async with stage:
        await scenario.play(stage)
    return stage.history


def settings(**options: object) -> Settings:
    return Settings.load(
        namespace=f"scene{next(_NUMBERS)}",
        max_bytes=2**20,
        later_max_bytes=2**22,
        duplicate_window=2,
        emit_timeout=1.5,
        park_after=1,
        **options,
    )


def test_there_is_a_scenario_for_each_semantic() -> None:
    assert len(SCENARIOS) >= 15


@pytest.mark.parametrize("name", SCENARIOS)
async def test_memory_keeps_the_history(name: str) -> None:
    scenario = importlib.import_module(f"tests.conformance.scenarios.{name}")

    history = await played(name, MemoryStage(settings(driver="memory")))

    assert history == list(scenario.HISTORY)


async def play_all(url: str) -> dict[str, list[str] | BaseException]:
    """Play every scenario, several at once: most of the time they wait."""
    places = asyncio.Semaphore(AT_ONCE)

    async def play(name: str) -> list[str]:
        async with places:
            return await played(name, RealStage(settings(driver="jetstream", nats_url=url)))

    histories = await asyncio.gather(*map(play, SCENARIOS), return_exceptions=True)
    return dict(zip(SCENARIOS, histories, strict=True))


@pytest.fixture(scope="session")
def real_histories(shared_server: NatsServer) -> dict[str, list[str] | BaseException]:
    """Give what happened on a real server."""
    return asyncio.run(play_all(shared_server.url))


@pytest.mark.xdist_group("scenarios")
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_real_server_keeps_the_history(
    name: str, real_histories: dict[str, list[str] | BaseException]
) -> None:
    scenario = importlib.import_module(f"tests.conformance.scenarios.{name}")
    history = real_histories[name]

    if isinstance(history, BaseException):
        raise history
    assert history == list(scenario.HISTORY)
