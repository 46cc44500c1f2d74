"""Upcasts: chains that are checked, and what a version becomes for who takes which one."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest

from eventbus import codec
from eventbus.declaration import subscription
from eventbus.envelope import Envelope, Message
from eventbus.errors import (
    DeclarationError,
    IncompatibleSchemaError,
    InvalidEventError,
    UnknownEventError,
    UpcastError,
)
from eventbus.event import Event
from eventbus.registry import Reading, Registry
from eventbus.roster import bind
from eventbus.subscription import Subscription
from eventbus.upcast import Payload, upcast

AT = datetime(2026, 3, 1, 10, tzinfo=UTC)


class UserEvent(Event): ...


class UserCreatedV1(UserEvent, name="user.created"):
    name: str


class UserCreatedV2(UserEvent, name="user.created", version=2):
    first: str
    last: str


class UserCreated(UserEvent, name="user.created", version=3):
    first: str
    last: str
    plan: str


split = upcast("user.created", from_version=1)(
    lambda data: dict(zip(("first", "last"), str(data["name"]).split(), strict=True))
)
plan = upcast("user.created", from_version=2)(lambda data: data | {"plan": "free"})


def knowing(*things: Any) -> Registry:
    """Return a registry with classes and upcasts, and none that stand beside them."""
    registry = Registry()
    for one in things:
        if isinstance(one, type):
            # Also the upcasts of this module: they are what most tests are about.
            registry.register(one)
        else:
            registry.register_upcast(one)
    return registry


def declare(name: str, version: int) -> type[Event]:
    """Return a class in a module of its own, so that no upcast stands beside it."""
    module = ModuleType(f"declared_{version}")
    sys.modules[module.__name__] = module
    source = f"class E(Event, name={name!r}, version={version}): ..."
    exec(source, {"Event": Event, "__name__": module.__name__}, vars(module))
    return cast("type[Event]", module.E)


def arriving(version: int | None, body: object) -> Message:
    headers = {"ce-id": "id-1", "ce-type": "user.created"}
    if version is not None:
        headers["ce-dataschema"] = f"user.created/v{version}"
    return Message("events.user.created", headers, json.dumps(body).encode())


def decoded(
    registry: Registry, version: int | None, body: object, *accepts: type[Event]
) -> Envelope:
    given = accepts or (Event,)
    message = arriving(version, body)
    return codec.decode(message, "user.created", registry, received=AT, accepts=given)


def listening(takes: object, target: Any = "user.created") -> Subscription:
    async def listen(event: Any) -> None: ...

    listen.__annotations__ = {"event": takes}
    return subscription("mail", target, listen, {})


def test_an_old_version_goes_through_all_steps_to_the_newest() -> None:
    registry = knowing(UserCreated)

    envelope = decoded(registry, 1, {"name": "Ada Lovelace"}, UserCreated)

    assert envelope.event == UserCreated(first="Ada", last="Lovelace", plan="free")
    assert envelope.version == 1
    assert json.loads(envelope.body) == {"name": "Ada Lovelace"}


def test_it_needs_no_class_of_the_versions_between() -> None:
    assert knowing(UserCreated).reading("user.created", 1, (UserCreated,)) == Reading(
        UserCreated, 3, (split, plan)
    )


@pytest.mark.parametrize(
    ("version", "accepts", "event", "steps"),
    [
        (1, (UserCreatedV1,), UserCreatedV1, ()),
        (2, (UserCreatedV1,), UserCreatedV1, ()),
        (1, (UserCreatedV2,), UserCreatedV2, (split,)),
        (3, (UserCreatedV2,), UserCreatedV2, ()),
        (9, (UserCreatedV2,), UserCreatedV2, ()),
        (1, (UserCreatedV1, UserCreated), UserCreatedV1, ()),
        (2, (UserCreatedV1, UserCreated), UserCreated, (plan,)),
        (1, (Event,), UserCreated, (split, plan)),
        (1, (UserEvent,), UserCreated, (split, plan)),
        (None, (Event,), UserCreated, ()),
        (9, (Event,), UserCreated, ()),
    ],
)
def test_a_listener_gets_the_version_it_asks_for(
    version: int | None,
    accepts: tuple[type[Event], ...],
    event: type[Event],
    steps: tuple[object, ...],
) -> None:
    registry = knowing(UserCreatedV1, UserCreatedV2, UserCreated)

    reading = registry.reading("user.created", version, accepts)

    assert (reading.event, reading.steps) == (event, steps)


def test_a_version_that_nothing_leads_on_from_stays_unknown() -> None:
    registry = knowing(declare("user.created", 3), plan)

    with pytest.raises(UnknownEventError, match="no version 1"):
        registry.reading("user.created", 1)


def test_a_field_that_is_missing_is_told_with_both_versions() -> None:
    with pytest.raises(
        InvalidEventError, match=r"\(version 3, read as version 1\): name"
    ) as raised:
        decoded(knowing(UserCreatedV1), 3, {"first": "Ada"}, UserCreatedV1)

    assert raised.value.versions == (3, 1)


@pytest.mark.parametrize("gives", [None, ["a"], {"when": object()}])
def test_an_upcast_that_gives_no_payload_makes_the_event_invalid(gives: Any) -> None:
    registry = knowing(
        declare("user.created", 2), upcast("user.created", from_version=1)(lambda _: gives)
    )

    with pytest.raises(UpcastError, match="from version 1 to 2 gave"):
        decoded(registry, 1, {})


def test_an_upcast_that_raises_tells_its_kind_of_error_and_no_payload() -> None:
    with pytest.raises(UpcastError) as raised:
        decoded(knowing(UserCreated), 1, {"name": "secret"})

    assert str(raised.value) == (
        "the upcast of 'user.created' from version 1 to 2 raised ValueError"
    )


@pytest.mark.parametrize("body", [["a"], "text", 1])
def test_a_body_that_is_no_object_reaches_no_upcast(body: object) -> None:
    with pytest.raises(InvalidEventError):
        decoded(knowing(UserCreated), 1, body)


@pytest.mark.parametrize(("start", "end"), [(0, 1), (2, 2), (3, 1)])
def test_versions_only_go_up_so_that_no_chain_goes_in_a_circle(start: int, end: int) -> None:
    with pytest.raises(DeclarationError, match="in a circle"):
        upcast("user.created", from_version=start, to_version=end)


def test_the_name_of_an_upcast_is_checked() -> None:
    with pytest.raises(DeclarationError, match=r"write 'user\.created'"):
        upcast("UserCreated", from_version=1)


def test_two_upcasts_from_one_version_are_refused() -> None:
    again = upcast("user.created", from_version=1, to_version=3)(lambda data: data)

    with pytest.raises(IncompatibleSchemaError, match="begin at version 1"):
        knowing(split, again)


def test_adding_an_upcast_again_changes_nothing() -> None:
    knowing(UserCreated, split, split, plan).check()


@pytest.mark.parametrize(
    ("things", "problem"),
    [
        ((split,), "no event 'user.created' is declared"),
        ((declare("user.create", 1), split), r"did you mean 'user\.create'"),
        ((declare("user.created", 1), split), "never reached: version 1 is the newest"),
        (
            (declare("user.created", 3), split),
            r"nothing goes on from version 2 to 3.*add @upcast\(\"user\.created\", from_version=2",
        ),
    ],
)
def test_a_chain_that_does_not_end_at_the_newest_version_is_refused(
    things: tuple[Any, ...], problem: str
) -> None:
    with pytest.raises(DeclarationError, match=problem):
        knowing(*things).check()


def test_a_listener_is_refused_that_a_declared_version_can_not_reach() -> None:
    old, new = declare("user.created", 1), declare("user.created", 2)
    registry = knowing(old, new)

    with pytest.raises(DeclarationError, match=r"from version 1 .*add @upcast.*or take E too"):
        bind(listening(new), registry, lambda: registry)
    bind(listening(old | new), registry, lambda: registry)
    bind(listening(Event), registry, lambda: registry)


def test_a_listener_may_ask_for_an_old_version() -> None:
    registry = knowing(UserCreatedV1, UserCreated)

    bind(listening(UserCreatedV1, UserCreatedV1), registry, lambda: registry)


def test_upcasts_are_found_in_a_schema_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "upcasting"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from eventbus import Event\n"
        "class TaskDone(Event, name='task.done', version=2):\n    count: int\n"
    )
    (package / "old.py").write_text(
        "from eventbus import upcast\n"
        "@upcast('task.done', from_version=1)\ndef one(data):\n    return {'count': 1}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry()

    (task,) = registry.discover("upcasting")

    assert registry.reading("task.done", 1).event is task
    assert registry.reading("task.done", 1).steps[0]({}) == {"count": 1}


def test_a_step_is_a_function_too() -> None:
    data: Payload = {"first": "Ada"}

    assert plan(data) == {"first": "Ada", "plan": "free"}
