"""Find the services that ``MODULE:NAME`` targets name, and say clearly what is wrong with one."""

import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from importlib.util import find_spec
from types import ModuleType

from eventbus.errors import ConfigurationError, EventBusError, did_you_mean
from eventbus.service import EventService

__all__ = ("discover", "load", "load_all", "search_working_directory")


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
            f"'{target}' is {_kind(value)}, not an EventService{_offer(module)}"
        )
    return value


def load_all(targets: Sequence[str]) -> list[EventService]:
    """Return the services that targets name, each once.

    Raises:
        ConfigurationError: As `load`, or two of them have one name and so would share durables.
    """
    found: dict[str, tuple[str, EventService]] = {}
    for target in targets:
        service = load(target)
        other, known = found.setdefault(service.name, (target, service))
        if known is not service:
            raise ConfigurationError(
                f"'{other}' and '{target}' are both called '{service.name}'; "
                "give one of them another name"
            )
    return [service for _, service in found.values()]


def discover(package: str = "services") -> list[tuple[str, EventService]]:
    """Return the targets and services that a package's direct modules hold; none without it.

    Raises:
        ConfigurationError: One of its modules can't be imported.
    """
    search_working_directory()
    if find_spec(package) is None:
        return []
    names = [package, *(f"{package}.{name}" for name in _submodules(package))]
    found: dict[int, tuple[str, EventService]] = {}
    for module_name in names:
        module = _import(module_name)
        for name in _services_in(module):
            found.setdefault(
                id(getattr(module, name)), (f"{module_name}:{name}", getattr(module, name))
            )
    return list(found.values())


def _import(name: str) -> ModuleType:
    search_working_directory()
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


def search_working_directory() -> None:
    """Let imports find what lies in the working directory, as ``python -m`` does."""
    # A console script finds its own folder there instead.
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def _broken(name: str, error: Exception) -> ConfigurationError:
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames if not one.filename.startswith("<frozen importlib")]
    # A syntax error says itself where it is; the last frame is the importer.
    where = "" if isinstance(error, SyntaxError) else f" ({own[-1].filename}:{own[-1].lineno})"
    return ConfigurationError(f"can't import '{name}': {type(error).__name__}: {error}{where}")


def _close_module(missing: str) -> str:
    parent, _, name = missing.rpartition(".")
    known = _submodules(parent) if parent else [one.name for one in pkgutil.iter_modules(["."])]
    hint = did_you_mean(name, known)
    return hint.replace("mean '", f"mean '{parent}.") if parent else hint


def _submodules(package: str) -> list[str]:
    paths = getattr(sys.modules.get(package) or importlib.import_module(package), "__path__", ())
    return [one.name for one in pkgutil.iter_modules(paths)]


def _kind(value: object) -> str:
    return "a class" if isinstance(value, type) else f"of type {type(value).__name__}"


def _services_in(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if isinstance(value, EventService)]


def _offer(module: ModuleType) -> str:
    names = _services_in(module)
    if not names:
        return "; it holds no EventService, write: events = EventService('name')"
    return f"; did you mean '{module.__name__}:{names[0]}'?"
