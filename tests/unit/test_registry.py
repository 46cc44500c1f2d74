"""Event classes by name and version, and the discovery of a package."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventbus import EventService, Settings
from eventbus.errors import DeclarationError, IncompatibleSchemaError, UnknownEventError
from eventbus.event import Event
from eventbus.registry import Registry


class UserCreatedV1(Event, name="user.created"):
    user_id: str


class UserCreated(Event, name="user.created", version=3):
    user_id: str


class UserDeleted(Event, name="user.deleted"):
    user_id: str


@pytest.fixture
def registry() -> Registry:
    known = Registry()
    for event in (UserCreated, UserCreatedV1, UserDeleted):
        known.register(event)
    return known


def test_the_newest_version_is_meant_where_none_is_given(registry: Registry) -> None:
    assert registry.resolve("user.created") is UserCreated


def test_each_declared_version_is_found(registry: Registry) -> None:
    assert registry.resolve("user.created", 1) is UserCreatedV1
    assert registry.resolve("user.created", 3) is UserCreated


def test_a_version_newer_than_all_known_is_read_as_the_newest(registry: Registry) -> None:
    assert registry.resolve("user.created", 4) is UserCreated


def test_a_version_that_was_left_out_is_unknown(registry: Registry) -> None:
    with pytest.raises(UnknownEventError) as raised:
        registry.resolve("user.created", 2)

    assert (raised.value.version, raised.value.known) == (2, (1, 3))


def test_an_unknown_name_is_answered_with_the_closest_one(registry: Registry) -> None:
    with pytest.raises(UnknownEventError, match=r"did you mean 'user\.created'"):
        registry.resolve("user.creatd")


def test_names_are_found_by_pattern(registry: Registry) -> None:
    assert registry.names() == ("user.created", "user.deleted")
    assert registry.names("*.deleted") == ("user.deleted",)
    assert registry.names("payment.>") == ()
    assert "user.created" in registry
    assert "user.*" not in registry


def test_events_come_by_name_and_version(registry: Registry) -> None:
    assert list(registry.events()) == [UserCreatedV1, UserCreated, UserDeleted]


def test_registering_a_class_again_changes_nothing(registry: Registry) -> None:
    assert registry.register(UserCreated) is UserCreated
    assert len(list(registry.events())) == 3


def test_two_classes_can_not_share_a_name_and_version(registry: Registry) -> None:
    class Twin(Event, name="user.created", version=3):
        id: str

    with pytest.raises(IncompatibleSchemaError) as raised:
        registry.register(Twin)

    assert "UserCreated" in str(raised.value)
    assert "Twin" in str(raised.value)
    assert registry.resolve("user.created") is UserCreated


def test_a_class_without_a_name_is_refused() -> None:
    class Base(Event):
        id: str

    with pytest.raises(DeclarationError, match="has no name"):
        Registry().register(Base)


def test_registries_know_nothing_of_one_another(registry: Registry) -> None:
    assert list(Registry().events()) == []


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a package of schemas that can be imported, and forget it after."""
    root = tmp_path / "sample_schemas"
    (root / "deep").mkdir(parents=True)
    (root / "__init__.py").write_text("from sample_schemas.order import OrderPlaced\n")
    (root / "deep" / "__init__.py").write_text("")
    (root / "order.py").write_text(
        "from eventbus.event import Event\n"
        "class Base(Event):\n    order_id: str\n"
        "class OrderPlaced(Base, name='order.placed'):\n    total: int\n"
    )
    (root / "deep" / "line.py").write_text(
        "from sample_schemas.order import Base, OrderPlaced\n"
        "class LineAdded(Base, name='order.line.added'):\n    sku: str\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield root
    for name in [one for one in sys.modules if one.split(".")[0] == root.name]:
        del sys.modules[name]


def test_discovery_finds_the_events_of_every_module_once(package: Path) -> None:
    registry = Registry()

    found = registry.discover("sample_schemas")

    assert sorted(event.__name__ for event in found) == ["LineAdded", "OrderPlaced"]
    assert registry.names() == ("order.line.added", "order.placed")


def test_discovering_twice_changes_nothing(package: Path) -> None:
    registry = Registry()

    assert registry.discover("sample_schemas") == registry.discover("sample_schemas")


def test_a_module_alone_can_be_discovered(package: Path) -> None:
    found = Registry().discover("sample_schemas.order")

    assert [event.__name__ for event in found] == ["OrderPlaced"]


def test_a_package_that_is_missing_is_named_with_the_remedy() -> None:
    with pytest.raises(DeclarationError, match=r"no_such_schemas.*EVENTBUS_SCHEMAS"):
        Registry().discover("no_such_schemas")


def test_a_module_that_imports_something_missing_is_not_passed_over(package: Path) -> None:
    (package / "deep" / "broken.py").write_text("import no_such_thing\n")

    with pytest.raises(DeclarationError, match="no_such_thing"):
        Registry().discover("sample_schemas")


def test_two_modules_that_claim_one_name_are_refused(package: Path) -> None:
    (package / "again.py").write_text(
        "from eventbus.event import Event\n"
        "class OrderPlaced(Event, name='order.placed'):\n    id: str\n"
    )

    with pytest.raises(IncompatibleSchemaError, match="declared twice"):
        Registry().discover("sample_schemas")


@pytest.mark.parametrize("is_broken", [False, True])
async def test_emits_of_unknown_names_import_the_schemas_once(
    package: Path, *, is_broken: bool
) -> None:
    (package / "counted.py").write_text(
        "import sys\n"
        "sys.imported = getattr(sys, 'imported', 0) + 1\n"
        + ("import no_such_thing\n" if is_broken else "")
    )
    events = EventService("shop", driver="sync", settings=Settings(schemas=("sample_schemas",)))
    problem = DeclarationError if is_broken else UnknownEventError

    try:
        async with events:
            for name in ("order.lost", "order.lost", "order.found"):
                with pytest.raises(problem):
                    await events.emit(name)
    finally:
        imported = vars(sys).pop("imported")

    assert imported == 1
