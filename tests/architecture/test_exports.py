"""What modules export: `__all__` is there, sorted, and true."""

import importlib
import pkgutil
from types import ModuleType

import pytest

import eventbus

MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(eventbus.__path__, "eventbus.")
    if not any(part.startswith("_") for part in info.name.split("."))
)


def loaded(name: str) -> ModuleType:
    return importlib.import_module(name)


def order(name: str) -> tuple[int, str]:
    """Sort as ruff does: constants, classes, the rest."""
    kind = 0 if name.isupper() else 1 if name[:1].isupper() else 2
    return kind, name


@pytest.mark.parametrize("name", ["eventbus", *MODULES])
def test_what_a_module_exports_is_there_once_and_sorted(name: str) -> None:
    module = loaded(name)
    exported = getattr(module, "__all__", None)

    if exported is None:
        # A package that only holds modules exports nothing.
        assert hasattr(module, "__path__")
        return
    assert isinstance(exported, tuple)
    assert list(exported) == sorted(set(exported), key=order)
    assert [one for one in exported if not hasattr(module, one)] == []


@pytest.mark.parametrize("name", MODULES)
def test_every_public_class_and_function_of_a_module_is_exported(name: str) -> None:
    module = loaded(name)

    forgotten = [
        own
        for own, value in vars(module).items()
        # pydantic keeps what a generic model was made of, such as 'Query[Any]', beside it.
        if own.isidentifier()
        and not own.startswith("_")
        and getattr(value, "__module__", None) == name
        and getattr(value, "__name__", None) == own
        and callable(value)
        and own not in getattr(module, "__all__", ())
    ]

    assert forgotten == []


def test_the_package_exports_what_services_are_written_with() -> None:
    names = {
        "Context",
        "Data",
        "Discard",
        "EmitUnknown",
        "Event",
        "EventService",
        "Middleware",
        "Receipt",
        "Reject",
        "Retry",
        "RetryLater",
        "Settings",
        "UnknownEvent",
    }

    assert names <= set(eventbus.__all__)


def test_settings_come_when_they_are_asked_for() -> None:
    from eventbus.settings import Settings

    assert eventbus.Settings is Settings


def test_a_name_that_the_package_lacks_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'eventbus' has no attribute 'Evnet'"):
        _ = eventbus.Evnet


def test_everything_can_be_imported_at_once() -> None:
    names: dict[str, object] = {}

    exec("from eventbus import *", names)

    assert set(eventbus.__all__) <= names.keys()
