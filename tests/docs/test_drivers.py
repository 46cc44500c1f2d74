"""The driver in the guide passes the suite, and what is in its folder outlives it."""

import asyncio
import re
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType

import pytest

from eventbus import Event, EventService, Retry, Settings
from eventbus.drivers import choice
from eventbus.testing.conformance import DriverConformance, Place

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "drivers.md"


def load() -> ModuleType:
    """Return the guide's module."""
    text = GUIDE.read_text()
    (code,) = re.findall(r"runs this block -->\n```python\n(.*?)```", text, re.DOTALL)
    module = ModuleType("spool_of_the_guide")
    exec(compile(code, "drivers.md", "exec", dont_inherit=True), vars(module))
    return module


guide = load()


class UserCreated(Event, name="user.created"):
    user_id: str


class TestSpoolDriver(DriverConformance):
    @pytest.fixture
    async def place(self, tmp_path: Path) -> Place:
        spool = guide.Spool(tmp_path)
        return Place(lambda _: guide.SpoolDriver(spool))


async def test_what_is_in_the_folder_outlives_the_process(tmp_path: Path) -> None:
    handled: list[str] = []
    done = asyncio.Event()

    def service(fails: bool) -> EventService:
        driver = guide.SpoolDriver(guide.Spool(tmp_path))
        events = EventService("app", settings=Settings(), driver=driver)

        @events.subscribe(UserCreated, retry=Retry(delays=(60,)))
        async def welcome(event: UserCreated) -> None:
            if fails:
                done.set()
                raise LookupError
            handled.append(event.user_id)
            if len(handled) == 2:
                done.set()

        return events

    async with service(fails=True) as events:
        await events.emit(UserCreated(user_id="u-1"))
        await done.wait()
    done.clear()
    async with service(fails=False) as events:
        await events.emit(UserCreated(user_id="u-2"))
        async with asyncio.timeout(30):
            await done.wait()

    assert sorted(handled) == ["u-1", "u-2"]


async def test_an_installed_package_gives_a_driver_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    entry = EntryPoint("spool", "spool_of_the_guide:make", "eventbus.drivers")
    monkeypatch.setattr(EntryPoint, "load", lambda _: guide.make)

    def installed(*, group: str, name: str = "spool") -> EntryPoints:
        found = [entry] if (group, name) == ("eventbus.drivers", "spool") else []
        return EntryPoints(found)

    monkeypatch.setattr(choice, "entry_points", installed)
    events = EventService("app", settings=Settings(driver="spool"))

    async with events:
        receipt = await events.emit(UserCreated(user_id="u-1"))

    assert receipt.driver == "spool"
    assert "spool" in choice.known_drivers()
