"""The kinds of fields that a generated event may have: how each is written, and a sample."""

import re
from dataclasses import dataclass

from eventbus.errors import ConfigurationError, did_you_mean

__all__ = ("FieldKind", "field_of")


@dataclass(frozen=True, slots=True)
class FieldKind:
    """A field of a generated event."""

    name: str
    type: str
    """As it stands in the class."""
    imports: tuple[tuple[str, str], ...]
    sample: str
    """A value as source, as ``emit`` takes it; None is no sample of an optional field."""
    optional: bool = False

    @property
    def line(self) -> str:
        """The field's line in the class."""
        return f"{self.name}: {self.type}" + (" | None = None" if self.optional else "")


_SAMPLES: dict[str, tuple[str | None, str]] = {
    "str": (None, '"some text"'),
    "int": (None, "7"),
    "float": (None, "1.5"),
    "bool": (None, "True"),
    "date": ("datetime", '"2026-01-31"'),
    "datetime": ("datetime", '"2026-01-31T12:00:00Z"'),
    "Decimal": ("decimal", '"12.50"'),
    "UUID": ("uuid", '"0190f3a4-0000-7000-8000-000000000000"'),
    "EmailStr": ("pydantic", '"ada@example.org"'),
    "HttpUrl": ("pydantic", '"https://example.org/"'),
    "PositiveInt": ("pydantic", "7"),
    "NonNegativeInt": ("pydantic", "0"),
    "PositiveFloat": ("pydantic", "1.5"),
    "AwareDatetime": ("pydantic", '"2026-01-31T12:00:00Z"'),
}
"""Where each type is imported from, and a value that it takes."""
_FIELD = re.compile(r"(?P<name>[a-z][a-z0-9_]*):(?P<type>\w+)(?P<many>\[\])?(?P<optional>\?)?")


def field_of(text: str) -> FieldKind:
    """Return the field that ``name:type`` describes; ``[]`` makes it many, ``?`` optional.

    Raises:
        ConfigurationError: It isn't written so, or the type is none that has a sample.
    """
    match = _FIELD.fullmatch(text)
    if match is None:
        raise ConfigurationError(
            f"--field {text!r} isn't NAME:TYPE; write email:EmailStr, age:int? or tags:str[]"
        )
    kind = match["type"]
    if kind not in _SAMPLES:
        hint = did_you_mean(kind, _SAMPLES)
        raise ConfigurationError(
            f"--field {text!r}: no type {kind!r} is known{hint} (known are {', '.join(_SAMPLES)})"
        )
    module, sample = _SAMPLES[kind]
    return FieldKind(
        name=match["name"],
        type=f"tuple[{kind}, ...]" if match["many"] else kind,
        imports=((module, kind),) if module else (),
        sample=f"[{sample}]" if match["many"] else sample,
        optional=match["optional"] is not None,
    )
