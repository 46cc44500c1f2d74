"""``eventbus make driver``: a driver around another one, and the suite that it has to pass."""

import re
from pathlib import Path
from typing import Annotated

import typer

__all__ = ("driver",)

_CLASS = '''\
class {name}(Wrapper):
    """Hands every event to another driver; override what is different in yours.

    Args:
        inner: The driver below; events stay in this process's memory where None.
    """

    def __init__(self, inner: Driver | None = None) -> None:
        super().__init__(inner or MemoryDriver())

    async def send(self, send: Send, subject: str) -> Receipt:
        """Hand over one message; ``subject`` is where it goes."""
        return await super().send(send, subject)


def make_{plain}(_settings: Settings, _service: str, _clock: Clock) -> Driver:
    """Return the driver for a service; the entry point names this function."""
    return {name}()
'''
_TEST = '''\
class Test{name}(DriverConformance):
    """The suite that every driver passes, within the features it declares."""

    @pytest.fixture
    def place(self) -> Place:
        """Give drivers that see the same events."""
        broker = MemoryBroker()
        return Place(lambda _service: {name}(MemoryDriver(broker)))
'''


def driver(
    *,
    name: Annotated[str, typer.Argument(help="Like SpoolDriver.", show_default=False)],
    package: Annotated[str, typer.Option(help="Where drivers are.")] = "drivers",
) -> None:
    """Write a driver that passes the conformance suite, and the test that shows it.

    It says what makes services find the driver by its name. Nothing is overwritten. docs/guide/drivers.md has a complete driver of its own.
    """
    from eventbus.cli.make.writing import Change, write
    from eventbus.errors import ConfigurationError

    if re.fullmatch(r"[A-Z][A-Za-z0-9]*Driver", name) is None:
        raise ConfigurationError(f"{name!r} isn't the name of a driver's class; write SpoolDriver")
    plain = re.sub(r"(?<!^)(?=[A-Z])", "_", name.removesuffix("Driver")).lower()
    module, folder = f"{package}.{plain}", Path(*package.split("."))
    values = {"name": name, "plain": plain}
    written = write(
        Change(
            folder / f"{plain}.py",
            new=f'"""`{name}`: a driver of its own."""\n',
            definition=f'__all__ = ("{name}", "make_{plain}")\n\n\n' + _CLASS.format(**values),
            imports={
                "eventbus": ["Clock", "Driver", "Receipt", "Settings"],
                "eventbus.drivers.memory": ["MemoryDriver"],
                "eventbus.drivers.wrappers.wrapper": ["Send", "Wrapper"],
            },
        ),
        Change(
            Path("tests", package.rpartition(".")[2], f"test_{plain}.py"),
            new=f'"""`{name}` keeps what drivers promise."""\n',
            definition="\n" + _TEST.format(**values),
            imports={
                "pytest": [],
                "eventbus.drivers.memory": ["MemoryBroker", "MemoryDriver"],
                "eventbus.testing.conformance": ["DriverConformance", "Place"],
                module: [name],
            },
        ),
        packages={folder: "Drivers of our own."},
    )
    for path in written:
        print(path)
    print("so that EVENTBUS_DRIVER finds it, add to pyproject.toml:")
    print(f'[project.entry-points."eventbus.drivers"]\n{plain} = "{module}:make_{plain}"')
