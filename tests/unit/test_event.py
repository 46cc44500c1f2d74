"""What an event class declares, and what is refused when it is declared."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import pytest
from pydantic import (
    AliasChoices,
    AliasGenerator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    Secret,
    SecretStr,
    ValidationError,
    field_serializer,
)
from pydantic.alias_generators import to_camel

from eventbus.errors import DeclarationError, EncodeError
from eventbus.event import Data, Event, EventSpec, UnknownEvent, spec_of


class Address(Data):
    city: str


class UserCreated(Event, name="user.created", version=2, key="user_id", tags=("crm", "gdpr:1")):
    user_id: str
    address: Address | None = None


def test_the_class_keywords_are_the_declaration() -> None:
    assert spec_of(UserCreated) == EventSpec(
        name="user.created",
        version=2,
        key="user_id",
        driver=None,
        tags=("crm", "gdpr:1"),
        priority="normal",
    )
    assert spec_of(UserCreated).schema == "user.created/v2"


def test_a_subclass_without_a_name_is_a_base_and_inherits_no_declaration() -> None:
    class Special(UserCreated):
        extra: int = 0

    assert Special.event_spec is None
    with pytest.raises(DeclarationError, match=r'Special\(Event, name="resource.action"\)'):
        spec_of(Special)


def test_fields_may_be_called_as_the_class_keywords() -> None:
    class Renamed(Event, name="thing.renamed"):
        name: str
        version: int
        key: str
        tags: list[str]

    assert Renamed(name="a", version=1, key="k", tags=[]).name == "a"


def declared(*, field: str = "x", **keywords: Any) -> type[Event]:
    """Declare a class with one field; untyped, as those who run no type checker would."""
    return type(Event)("Odd", (Event,), {"__annotations__": {field: str}}, **keywords)


@pytest.mark.parametrize(
    ("keywords", "problem"),
    [
        ({"name": "UserCreated"}, "isn't an event name"),
        ({"name": "user.*"}, "wildcards"),
        ({"name": "user created"}, "white space"),
        ({"name": ""}, "it is empty"),
        ({"name": 5}, "Odd"),
        ({"name": "a.b", "version": 0}, "version=0"),
        ({"name": "a.b", "version": True}, "version=True"),
        ({"name": "a.b", "version": "2"}, "version='2'"),
        ({"name": "a.b", "key": "xx"}, "key='xx' isn't one of its fields (x)"),
        ({"name": "a.b", "tags": "crm"}, "tags=('crm',)"),
        ({"name": "a.b", "tags": ("a,b",)}, "tag 'a,b'"),
        ({"name": "a.b", "tags": ("a\r\nb",)}, "tag 'a\\r\\nb'"),
        ({"name": "a.b", "priority": "urgent"}, "must be one of high, normal, low"),
        ({"name": "a.b", "verson": 2}, "no class keyword 'verson'; did you mean 'version'?"),
        ({"version": 2}, "version without name="),
    ],
    ids=str,
)
def test_a_wrong_declaration_is_refused_where_it_stands(
    keywords: dict[str, Any], problem: str
) -> None:
    with pytest.raises(DeclarationError) as raised:
        declared(**keywords)

    assert problem in str(raised.value)


@pytest.mark.filterwarnings("ignore:Field name:UserWarning")
@pytest.mark.parametrize("name", ["event_key", "event_body", "event_spec"])
def test_a_field_can_not_hide_what_the_bus_needs(name: str) -> None:
    with pytest.raises(DeclarationError, match=f"'{name}' is taken"):
        declared(name="a.b", field=name)


@pytest.mark.parametrize("extra", ["allow", "ignore"])
def test_unknown_fields_can_not_be_let_in(extra: Literal["allow", "ignore"]) -> None:
    with pytest.raises(DeclarationError, match="use a dict field"):

        class Loose(Event, name="a.b", extra=extra):
            x: int

    with pytest.raises(DeclarationError, match="use a dict field"):

        class LooseData(Data):
            model_config = ConfigDict(extra=extra)


class Foreign(BaseModel):
    x: int


@pytest.mark.parametrize(
    "kind",
    [Foreign, list[Foreign], dict[str, Foreign | None], tuple[int, Foreign]],
    ids=["plain", "in a list", "in a dict of unions", "in a tuple"],
)
def test_a_nested_model_must_share_the_rules(kind: object) -> None:
    with pytest.raises(DeclarationError, match="change its base class from BaseModel to Data"):
        type(Event)("Odd", (Event,), {"__annotations__": {"x": kind}}, name="a.b")


def _secret() -> None:
    class Odd(Event, name="a.b"):
        token: SecretStr


def _nested_secret() -> None:
    class Odd(Event, name="a.b"):
        tokens: list[Secret[int]]


def _set() -> None:
    class Odd(Event, name="a.b"):
        names: set[str]


def _nested_set() -> None:
    class Odd(Event, name="a.b"):
        names: dict[str, frozenset[int] | None]


def _excluded() -> None:
    class Odd(Event, name="a.b"):
        x: int = Field(exclude=True)


def _written_elsewhere() -> None:
    class Odd(Event, name="a.b"):
        x: int = Field(serialization_alias="y")


def _read_elsewhere() -> None:
    class Odd(Event, name="a.b"):
        x: int = Field(validation_alias="y")


def _generated() -> None:
    class Odd(Event, name="a.b", alias_generator=AliasGenerator(serialization_alias=to_camel)):
        one_x: int


def _in_data() -> None:
    class Odd(Data):
        x: int = Field(serialization_alias="y")


@pytest.mark.parametrize(
    ("declare", "problem"),
    [
        (_secret, "token is a SecretStr, which is written as asterisks"),
        (_set, "names is a set, which each process writes in another order; use a tuple"),
        (_nested_set, "names is a frozenset, which each process writes in another order"),
        (_nested_secret, "tokens is a Secret"),
        (_excluded, "x is excluded"),
        (_written_elsewhere, "x is written as 'y'"),
        (_read_elsewhere, "x is written as 'x'"),
        (_generated, "one_x is written as 'oneX'"),
        (_in_data, "x is written as 'y'"),
    ],
)
def test_a_field_that_could_not_be_read_back_is_refused(
    declare: Callable[[], None], problem: str
) -> None:
    with pytest.raises(DeclarationError) as raised:
        declare()

    assert problem in str(raised.value)


def test_a_field_may_have_another_name_on_the_wire() -> None:
    class Camel(Event, name="a.b", alias_generator=to_camel):
        user_id: str
        by: str = Field(alias="madeBy")
        at: str = Field(
            serialization_alias="atTime", validation_alias=AliasChoices("atTime", "when")
        )

    event = Camel.model_validate({"userId": "u", "madeBy": "me", "when": "now"})

    assert event.event_body() == b'{"userId":"u","madeBy":"me","atTime":"now"}'
    assert Camel.model_validate_json(event.event_body()) == event


def test_a_model_that_holds_itself_is_fine() -> None:
    class Node(Data):
        children: tuple["Node", ...] = ()

    class TreeGrown(Event, name="tree.grown"):
        root: Node

    assert TreeGrown(root=Node(children=(Node(),))).event_body() == (
        b'{"root":{"children":[{"children":[]}]}}'
    )


def test_an_event_is_valid_once_it_exists_and_stays_as_it_is() -> None:
    event = UserCreated(user_id="u-1")

    with pytest.raises(ValidationError):
        event.user_id = "u-2"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        UserCreated(user_id="u-1", emial="x")  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        UserCreated.model_validate({"user_id": "u-1", "address": {"city": "x", "zip": 1}})


def test_a_validation_error_does_not_show_the_values() -> None:
    with pytest.raises(ValidationError) as raised:
        UserCreated.model_validate({"user_id": {"secret": "s3cr3t"}})

    assert "s3cr3t" not in str(raised.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_can_not_hold_is_refused(value: float) -> None:
    class Measured(Event, name="thing.measured"):
        value: float
        free: dict[str, JsonValue]

    with pytest.raises(ValidationError):
        Measured(value=value, free={})
    with pytest.raises(ValidationError):
        Measured(value=1, free={"x": [value]})


def test_the_key_is_the_key_field_as_text() -> None:
    class Moved(Event, name="thing.moved", key="number"):
        number: int | None

    assert UserCreated(user_id="u-1").event_key() == "u-1"
    assert Moved(number=0).event_key() == "0"
    assert Moved(number=None).event_key() is None


def test_an_event_without_a_key_field_has_no_key() -> None:
    class Noted(Event, name="thing.noted"):
        x: int

    assert Noted(x=1).event_key() is None


def test_the_body_is_the_payload_as_json() -> None:
    class Paid(Event, name="order.paid"):
        at: datetime
        amount: Decimal
        proof: bytes
        address: Address

    event = Paid(
        at=datetime(2026, 3, 1, tzinfo=UTC),
        amount=Decimal("9.90"),
        proof=b"\xff\x00",
        address=Address(city="Köln"),
    )

    assert json.loads(event.event_body()) == {
        "at": "2026-03-01T00:00:00Z",
        "amount": "9.90",
        "proof": "_wA=",
        "address": {"city": "Köln"},
    }
    assert Paid.model_validate_json(event.event_body()) == event


def test_what_can_not_become_json_says_so_with_the_class() -> None:
    class Stubborn(Event, name="thing.hidden"):
        x: int

        @field_serializer("x")
        def _never(self, value: int) -> int:
            raise RuntimeError("no")

    with pytest.raises(EncodeError, match="Stubborn can't become JSON"):
        Stubborn(x=1).event_body()


def test_an_unknown_event_holds_its_name_version_and_data() -> None:
    event = UnknownEvent(name="order.placed", version=3, data={"total": [1, None]})

    assert isinstance(event, Event)
    assert event.event_spec is None
    assert event.data == {"total": [1, None]}
