"""`Event`, the base class of every event: the class is the contract, all else derives from it."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import ClassVar, Literal, Self, TypeAlias, Unpack, get_args, get_origin

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    JsonValue,
    Secret,
    SecretBytes,
    SecretStr,
)
from pydantic.fields import FieldInfo

from eventbus.duration import Duration, seconds
from eventbus.errors import DeclarationError, EncodeError, SubjectError, did_you_mean
from eventbus.subject import check_event_name, check_name

__all__ = (
    "METADATA",
    "Data",
    "Event",
    "EventSpec",
    "Kind",
    "Priority",
    "UnknownEvent",
    "spec_of",
    "tag_problems",
)

Priority: TypeAlias = Literal["high", "normal", "low"]
"""How urgent the events of a class are when several wait for the same slots."""
Kind: TypeAlias = Literal["event", "domain", "notification", "state"]
"""What an event is for, as it stands in ``ce-kind``; `eventbus.kinds` has the classes."""

_DRIVERS: Mapping[Kind, str] = {"domain": "sync"}
"""The driver of a kind's classes that name none."""
_TAG = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class Data(BaseModel):
    """Base of everything in a payload: frozen, and strict about unknown fields when emitting.

    Nested payload models inherit it, so that one rule holds at every depth. Reading is tolerant:
    a field that this side doesn't know is ignored. ``extra="allow"`` is refused; declare a
    ``dict`` field for open data.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        # JSON has neither, and a null in their place would not come back as a float.
        allow_inf_nan=False,
        ser_json_bytes="base64",
        val_json_bytes="base64",
        # Payloads hold personal data; errors go to logs.
        hide_input_in_errors=True,
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        """Refuse what could not be read back as it was written."""
        super().__pydantic_init_subclass__(**kwargs)
        if cls.model_config.get("extra") != "forbid":
            raise DeclarationError(
                f"{cls.__qualname__} changes extra=; payloads are strict when emitted and "
                "tolerant when read, use a dict field for open data"
            )
        config = cls.model_config
        by_name = bool(config.get("validate_by_name") or config.get("populate_by_name"))
        for field, info in cls.model_fields.items():
            for problem in _field_problems(field, info, by_name=by_name):
                raise DeclarationError(f"{cls.__qualname__}.{field} {problem}")


def _field_problems(field: str, info: FieldInfo, *, by_name: bool) -> Iterator[str]:
    """Yield why a field could not be read back as it was written."""
    for kind in _classes_in(info.annotation):
        if issubclass(kind, BaseModel) and not issubclass(kind, Data):
            yield (
                f"holds {kind.__qualname__}, which doesn't inherit eventbus.Data; "
                "change its base class from BaseModel to Data"
            )
        if issubclass(kind, (Secret, SecretStr, SecretBytes)):
            yield f"is a {kind.__qualname__}, which is written as asterisks; use another type"
        if issubclass(kind, Set):
            # What a listener emits again after a crash would be another event, by its body.
            yield (
                f"is a {kind.__name__}, which each process writes in another order; use a tuple "
                "or a list"
            )
    if info.exclude:
        yield "is excluded from what is written; leave it out of the event"
    written = info.serialization_alias or field
    if written not in _names_read(field, info, by_name=by_name):
        yield f"is written as {written!r} and not read by that name; use alias= for both"


def _classes_in(annotation: object) -> Iterator[type]:
    for one in (annotation, get_origin(annotation)):
        if isinstance(one, type):
            yield one
    for argument in get_args(annotation):
        yield from _classes_in(argument)


def _names_read(field: str, info: FieldInfo, *, by_name: bool) -> Iterator[str]:
    alias = info.validation_alias
    if alias is None or by_name:
        yield field
    for one in alias.choices if isinstance(alias, AliasChoices) else (alias,):
        if isinstance(one, str):
            yield one


@dataclass(frozen=True, slots=True)
class EventSpec:
    """What an event class declares about itself."""

    name: str
    """``resource.action``, in the past tense."""
    version: int = 1
    """Version of the payload's shape; raise it when a change isn't compatible."""
    key: str | None = None
    """The field whose value orders events: equal keys belong together."""
    driver: str | None = None
    """The driver it goes through where ``emit`` names none; None means the service's."""
    tags: tuple[str, ...] = ()
    """Labels that travel with it."""
    priority: Priority = "normal"
    """How urgent it is."""
    expires: Duration | None = None
    """How long after it is emitted listeners need not handle it any more, where ``emit`` doesn't
    say; None for never."""
    queue: str | None = None
    """The queue of its listeners that name none."""
    delay: Duration | None = None
    """How long its listeners wait before they handle it, where they don't say."""
    tries: int | None = None
    """How many attempts its listeners make, where they don't say."""
    timeout: Duration | None = None
    """The longest run of its listeners, where they don't say."""
    can_unqueue: bool = True
    """Whether one that waits for its time may be taken back."""
    after_commit: bool = False
    """Whether, in a transaction, listeners of this process get it after the commit alone."""
    kind: Kind = "event"
    """What it is for; comes from its base class."""

    @property
    def schema(self) -> str:
        """The identity of the payload's shape, as it stands in ``ce-dataschema``."""
        return f"{self.name}/v{self.version}"


_TAKEN = frozenset(
    {"event_body", "event_key", "event_kind", "event_metadata", "event_spec", "with_metadata"}
)
_KEYWORDS = tuple(one.name for one in fields(EventSpec) if one.name != "kind")
METADATA = "event metadata"
"""Where an event keeps it, beside its fields; no field can have that name."""
_NO_METADATA: Mapping[str, str] = MappingProxyType({})


class Event(Data):
    """A fact that happened: typed, frozen, valid once it exists.

    ::

        class UserCreated(Event, name="user.created", version=1, key="user_id"):
            user_id: str
            email: EmailStr

    A subclass without ``name=`` is a base for others and can't be emitted.

    Raises:
        DeclarationError: At class creation, for a wrong name, version, key, tag or priority.
    """

    event_spec: ClassVar[EventSpec | None] = None
    """What the class keywords declared; None for a base class."""
    event_kind: ClassVar[Kind] = "event"
    """What events of this class are for."""

    def __init_subclass__(  # noqa: PLR0913 - one for each thing a class may declare
        cls,
        *,
        name: str | None = None,
        version: int = 1,
        key: str | None = None,
        driver: str | None = None,
        tags: tuple[str, ...] = (),
        priority: Priority = "normal",
        expires: Duration | None = None,
        queue: str | None = None,
        delay: Duration | None = None,
        tries: int | None = None,
        timeout: Duration | None = None,
        can_unqueue: bool = True,
        after_commit: bool = False,
        **config: Unpack[ConfigDict],
    ) -> None:
        """Name the class keywords for type checkers; they are read once the fields are known."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        """Check the declaration, once the fields are known."""
        super().__pydantic_init_subclass__()
        where = f"{cls.__module__}.{cls.__qualname__}"
        for taken in _TAKEN.intersection(cls.model_fields):
            raise DeclarationError(f"{where}: {taken!r} is taken; rename that field")
        for keyword in kwargs:
            if keyword not in _KEYWORDS:
                hint = did_you_mean(keyword, _KEYWORDS)
                raise DeclarationError(f"{where}: no class keyword {keyword!r}{hint}")
        if "name" not in kwargs and kwargs:
            raise DeclarationError(f"{where}: {', '.join(kwargs)} without name=; add the name")
        if not kwargs:
            cls.event_spec = None
            return
        given = {"driver": _DRIVERS.get(cls.event_kind), "kind": cls.event_kind, **kwargs}
        cls.event_spec = spec = EventSpec(**given)  # type: ignore[arg-type]
        for problem in (*_problems(spec, cls.model_fields), *cls._kind_problems(spec)):
            raise DeclarationError(f"{where}: {problem}")

    @classmethod
    def _kind_problems(cls, spec: EventSpec) -> Iterable[str]:  # noqa: ARG003 - kinds look at it
        """Return what its kind doesn't allow."""
        return ()

    @property
    def event_metadata(self) -> Mapping[str, str]:
        """What `with_metadata` gave it; a listener finds it in ``context.headers``."""
        found: dict[str, str] | None = self.__dict__.get(METADATA)
        return MappingProxyType(found) if found else _NO_METADATA

    def with_metadata(self, metadata: Mapping[str, str] = _NO_METADATA, /, **more: str) -> Self:
        """Return the same event with metadata: what belongs to this emit, not to the fact.

        It travels as headers of the user's own, beside those of ``emit(headers=)``, which win.
        The event that it is called on stays as it is, and the two are equal. Names are those of
        headers, in lower case; what can't be one is refused by the emit.
        """
        copy = self.model_copy()
        given = {**metadata, **more}
        lowered = {name.lower(): value for name, value in given.items()}
        object.__setattr__(copy, METADATA, {**self.event_metadata, **lowered})
        return copy

    def event_key(self) -> str | None:
        """Return the value of the key field as a string; None where there is none."""
        key = (self.event_spec or spec_of(type(self))).key
        value: object = getattr(self, key) if key is not None else None
        return value if type(value) is str else None if value is None else str(value)

    def event_body(self) -> bytes:
        """Return the payload as JSON bytes, as it goes on the wire.

        Raises:
            EncodeError: A field holds what JSON can't.
        """
        try:
            return self.__pydantic_serializer__.to_json(self, by_alias=True)
        except Exception as exc:
            raise EncodeError(f"{type(self).__qualname__} can't become JSON: {exc}") from exc


def _problems(spec: EventSpec, fields: Collection[str]) -> Iterator[str]:
    """Yield what the type checkers would find too, for those who don't run one."""
    try:
        check_event_name(spec.name)
    except (SubjectError, TypeError) as exc:
        yield str(exc)
    if type(spec.version) is not int or spec.version < 1:
        yield f"version={spec.version!r} must be a whole number from 1"
    if spec.key is not None and spec.key not in fields:
        known = ", ".join(fields) or "none"
        hint = did_you_mean(spec.key, fields)
        yield f"key={spec.key!r} isn't one of its fields ({known}){hint}"
    if not isinstance(spec.tags, tuple):
        yield f"tags={spec.tags!r} must be a tuple, write tags=({spec.tags!r},)"
    yield from tag_problems(spec.tags)
    if spec.priority not in get_args(Priority):
        yield f"priority={spec.priority!r} must be one of {', '.join(get_args(Priority))}"
    yield from _listening_problems(spec)


def tag_problems(tags: Iterable[str]) -> Iterator[str]:
    """Yield why tags can't be carried."""
    for tag in tags:
        if not _TAG.fullmatch(tag):
            yield f"tag {tag!r} must be 1 to 64 of A-Z, a-z, 0-9, '_', '.', ':' and '-'"


def _listening_problems(spec: EventSpec) -> Iterator[str]:
    """Yield what no listener could take over."""
    if spec.tries is not None and (type(spec.tries) is not int or spec.tries < 1):
        yield f"tries={spec.tries!r} must be a whole number from 1"
    for keyword in ("can_unqueue", "after_commit"):
        if type(getattr(spec, keyword)) is not bool:
            yield f"{keyword}={getattr(spec, keyword)!r} must be True or False"
    try:
        if spec.queue is not None:
            check_name(spec.queue, "queue")
        seconds(spec.delay or 0)
        seconds(0 if spec.expires is None else spec.expires)
        if spec.timeout is not None and not seconds(spec.timeout):
            yield f"timeout={spec.timeout!r} leaves its listeners no time"
    except (SubjectError, ValueError, TypeError) as exc:
        yield str(exc)


def spec_of(event: type[Event] | Event) -> EventSpec:
    """Return what an event's class declares.

    Raises:
        DeclarationError: The class has no ``name=``, so it is only a base for others.
    """
    if event.event_spec is None:
        event = event if isinstance(event, type) else type(event)
        raise DeclarationError(
            f"{event.__module__}.{event.__qualname__} has no name; "
            f'declare it as class {event.__name__}(Event, name="resource.action")'
        )
    return event.event_spec


class UnknownEvent(Event):
    """An event that this service has no class for, as a listener of base `Event` gets it."""

    name: str
    version: int
    data: JsonValue
