"""`quick`: frozen dataclasses that are made at the speed of plain ones.

A frozen dataclass sets each field through `object.__setattr__`, which takes three times as long.
The records of every event have 5 to 20 fields, so that this shows.
"""

from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

__all__ = ("quick",)

T = TypeVar("T", bound=type[Any])


def quick(cls: T) -> T:
    """Make a frozen, slotted dataclass without bases quick to make; nothing else changes.

    ::

        @quick
        @dataclass(frozen=True, slots=True)
        class Point: ...

    While it is made, the object is one of a class with the same slots that isn't frozen.
    """
    own = fields(cls)
    open_ = type(cls.__name__, (), {"__slots__": tuple(one.name for one in own)})
    known: dict[str, object] = {"open_": open_, "frozen": cls, "set_": object.__setattr__}
    known["missing"] = MISSING
    parameters = [_parameter(one, known) for one in own]
    lines = [f"    self.{one.name} = {_value(one)}" for one in own]
    source = "\n".join(
        (
            f"def __init__(self, {', '.join(parameters)}):",
            "    set_(self, '__class__', open_)",
            *lines,
            "    self.__class__ = frozen",
        )
    )
    exec(source, known)  # noqa: S102 - as dataclasses does; made of the names of fields alone
    made: Any = known["__init__"]
    made.__annotations__ = dict(cls.__init__.__annotations__)
    made.__qualname__ = cls.__init__.__qualname__
    cls.__init__ = made
    return cls


def _parameter(field: "Field[object]", known: dict[str, object]) -> str:
    """Return a field as a parameter; its default is kept among the names the source knows."""
    if field.default is MISSING and field.default_factory is MISSING:
        return field.name
    if field.default is MISSING:
        known[f"make_{field.name}"] = field.default_factory
        return f"{field.name}=missing"
    known[f"default_{field.name}"] = field.default
    return f"{field.name}=default_{field.name}"


def _value(field: "Field[object]") -> str:
    """Return what a field is set to."""
    if field.default_factory is MISSING:
        return field.name
    return f"make_{field.name}() if {field.name} is missing else {field.name}"
