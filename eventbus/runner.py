"""The process: load services, set up telemetry, obey signals, and end with the right code.

The only place with signal handlers, and where `eventbus run` and its relatives begin and end.
"""

import asyncio
import faulthandler
import importlib
import logging
import os
import pkgutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, ModuleType

from eventbus.errors import ConfigurationError, EventBusError, SettingsError, did_you_mean
from eventbus.service import EventService

__all__ = ("Stop", "discover", "load", "run", "run_until_stopped", "serve")

_log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
FLUSH_TIME = 2.0
"""Seconds of the grace period kept for closing connections and flushing telemetry."""


# Loading ---------------------------------------------------------------------------------------


def load(target: str) -> EventService:
    """Return the service that ``MODULE:NAME`` names; the working directory is searched too.

    Raises:
        ConfigurationError: There is no such module or name, it can't be imported, or it isn't an
            `EventService`; the message names what is close.
    """
    module_name, _, path = target.partition(":")
    if not module_name or not path:
        raise ConfigurationError(
            f"'{target}' isn't MODULE:NAME; write it like '{module_name or 'services.user'}:events'"
        )
    module = _import(module_name)
    value: object = module
    for name in path.split("."):
        if not hasattr(value, name):
            hint = did_you_mean(name, _services_in(module)) or _offer(module)
            raise ConfigurationError(f"module '{module_name}' has no '{path}'{hint}")
        value = getattr(value, name)
    if not isinstance(value, EventService):
        raise ConfigurationError(
            f"'{target}' is a {type(value).__name__}, not an EventService{_offer(module)}"
        )
    return value


def discover(package: str = "services") -> list[tuple[str, EventService]]:
    """Return the targets and services that a package's direct modules hold; none without it.

    Raises:
        ConfigurationError: One of its modules can't be imported.
    """
    _search_working_directory()
    if importlib.util.find_spec(package) is None:
        return []
    names = [package, *(f"{package}.{name}" for name in _submodules(package))]
    found: dict[int, tuple[str, EventService]] = {}
    for module_name in names:
        module = _import(module_name)
        for name in _services_in(module):
            found.setdefault(id(getattr(module, name)), (f"{module_name}:{name}", getattr(module, name)))
    return list(found.values())


def _import(name: str) -> ModuleType:
    _search_working_directory()
    try:
        return importlib.import_module(name)
    except EventBusError:
        raise
    except ModuleNotFoundError as exc:
        if exc.name is None or not (name == exc.name or name.startswith(f"{exc.name}.")):
            raise _broken(name, exc) from exc
        raise ConfigurationError(
            f"there is no module '{exc.name}' in {os.getcwd()} or installed"
            f"{_close_module(exc.name)}"
        ) from exc
    except Exception as exc:
        raise _broken(name, exc) from exc


def _search_working_directory() -> None:
    # A console script has its own folder there, not the one it was called from.
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def _broken(name: str, error: Exception) -> ConfigurationError:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = "" if isinstance(error, SyntaxError) else f" ({frame.filename}, line {frame.lineno})"
    return ConfigurationError(f"can't import '{name}': {type(error).__name__}: {error}{where}")


def _close_module(missing: str) -> str:
    parent, _, name = missing.rpartition(".")
    known = _submodules(parent) if parent else [one.name for one in pkgutil.iter_modules(["."])]
    hint = did_you_mean(name, known)
    return hint.replace("mean '", f"mean '{parent}.") if parent else hint


def _submodules(package: str) -> list[str]:
    paths = getattr(sys.modules.get(package) or importlib.import_module(package), "__path__", ())
    return [one.name for one in pkgutil.iter_modules(paths)]


def _services_in(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if isinstance(value, EventService)]


def _offer(module: ModuleType) -> str:
    names = _services_in(module)
    if not names:
        return f"; it holds no EventService, write: events = EventService('name')"
    return f"; did you mean '{module.__name__}:{names[0]}'?"


# Signals ---------------------------------------------------------------------------------------


class Stop:
    """A process's order to end: the first SIGTERM or SIGINT gives it, a second ends at once.

    Awaitable through `wait`. Where the event loop is stuck in a listener that blocks it, the
    process prints where, and ends with code 1 once the grace period is over.
    """

    def __init__(self) -> None:
        self.grace = 0.0
        """Seconds after which it ends by force; 0 for never."""
        self._asked = asyncio.Event()
        self._signal: signal.Signals | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def asked(self) -> bool:
        """Whether the order was given."""
        return self._signal is not None

    @property
    def code(self) -> int:
        """The exit code of a process that a signal ended before it was done."""
        return 0 if self._signal is None else 128 + self._signal

    async def wait(self) -> None:
        """Wait for the order."""
        await self._asked.wait()

    @contextmanager
    def installed(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Obey signals within; the handlers that were there come back afterwards."""
        self._loop = loop
        before = {one: signal.signal(one, self._on_signal) for one in STOP_SIGNALS}
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            for one, handler in before.items():
                signal.signal(one, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # Not loop.add_signal_handler: a stuck loop would never see the second signal.
        if self._signal is not None:
            os._exit(128 + number)
        self._signal = signal.Signals(number)
        if self.grace:
            faulthandler.dump_traceback_later(self.grace, exit=True)
        assert self._loop is not None, "handlers are installed with a loop"
        self._loop.call_soon_threadsafe(self._asked.set)


def run_until_stopped(main: Callable[[Stop], Coroutine[object, object, int]]) -> int:
    """Run ``main(stop)`` on an event loop that obeys signals; return what it returns.

    uvloop is used where it is installed.
    """
    stop = Stop()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner, stop.installed(runner.get_loop()):
        return runner.run(main(stop))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop


def end_with_parent() -> None:
    """Order this process to stop when its standard input closes: its parent is gone."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
