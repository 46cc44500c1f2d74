"""A field's annotation as source code: what `emit` accepts for it in a mapping."""

import keyword
import types
from collections import abc
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Literal, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel

__all__ = ("Source", "camel_case")

PLAIN: Mapping[type, str] = {
    str: "str",
    int: "int",
    float: "float",
    bool: "bool",
    bytes: "bytes | str",
    type(None): "None",
    datetime: "datetime | str",
    date: "date | str",
    time: "time | str",
    timedelta: "timedelta | str",
    UUID: "UUID | str",
    Decimal: "Decimal | str | int | float",
}
"""What a mapping may hold for these; pydantic reads the text of the second form."""
_IMPORTED = frozenset({datetime, date, time, timedelta, UUID, Decimal})
_ARRAYS: Mapping[object, str] = {
    **dict.fromkeys((list, tuple, abc.Sequence), "Sequence"),
    **dict.fromkeys((set, frozenset, abc.Set), "Iterable"),
}
_OBJECTS: tuple[object, ...] = (dict, abc.Mapping)
_UNIONS: tuple[object, ...] = (Union, types.UnionType)


@dataclass(slots=True)
class Source:
    """The classes and imports of a generated module, collected while fields are written."""

    classes: dict[str, str] = field(default_factory=dict[str, str])
    """The source of each class, by its name; those that others use come first."""
    imports: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    _named: dict[type[BaseModel], str] = field(default_factory=dict[type[BaseModel], str])

    def fields_of(self, model: type[BaseModel], name: str = "") -> str:
        """Return the name of the ``TypedDict`` for a model's fields; add it where it is missing."""
        if model not in self._named:
            free = self._free(name or f"{camel_case(model.__name__)}Fields")
            self._named[model] = free
            self.classes[free] = ""  # taken, for models that hold themselves
            source = self._typed_dict(free, model)
            del self.classes[free]
            self.classes[free] = source
        return self._named[model]

    def _free(self, name: str) -> str:
        number = 2
        free = name
        while free in self.classes:
            free = f"{name}{number}"
            number += 1
        return free

    def _typed_dict(self, name: str, model: type[BaseModel]) -> str:
        members = {
            info.alias or own: (self.written(info.annotation), info.is_required())
            for own, info in model.model_fields.items()
        }
        shown = {
            own: text if required else f"NotRequired[{text}]"
            for own, (text, required) in members.items()
        }
        self._use("typing", "TypedDict")
        if any(not required for _, required in members.values()):
            self._use("typing", "NotRequired")
        if all(own.isidentifier() and not keyword.iskeyword(own) for own in shown):
            body = "\n".join(f"    {own}: {text}" for own, text in shown.items()) or "    pass"
            return (
                f'class {name}(TypedDict):\n    """The fields of `{model.__name__}`."""\n\n{body}'
            )
        pairs = ", ".join(f"{own!r}: {text!r}" for own, text in shown.items())
        return f"{name} = TypedDict({name!r}, {{{pairs}}})"

    def written(self, annotation: object) -> str:
        """Return a type as source; ``object`` for one that only its module knows."""
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is not None:
            return self._generic(origin, arguments)
        if isinstance(annotation, type):
            return self._class(annotation)
        return "None" if annotation is None else "object"

    def _generic(self, origin: object, arguments: tuple[object, ...]) -> str:
        if origin is Annotated:
            return self.written(arguments[0])
        if origin is Literal:
            self._use("typing", "Literal")
            return f"Literal[{', '.join(repr(one) for one in arguments)}]"
        if origin in _UNIONS:
            return self._any_of(arguments)
        if origin in _ARRAYS:
            kind = _ARRAYS[origin]
            self._use("collections.abc", kind)
            return f"{kind}[{self._any_of(one for one in arguments if one is not Ellipsis)}]"
        if origin in _OBJECTS:
            self._use("collections.abc", "Mapping")
            return f"Mapping[{', '.join(self.written(one) for one in arguments)}]"
        return "object"

    def _any_of(self, annotations: Iterable[object]) -> str:
        texts = [part for one in annotations for part in self.written(one).split(" | ")]
        return " | ".join(dict.fromkeys(texts)) or "object"

    def _class(self, annotation: type) -> str:
        if annotation in PLAIN:
            if annotation in _IMPORTED:
                self._use(annotation.__module__, annotation.__name__)
            return PLAIN[annotation]
        if issubclass(annotation, BaseModel):
            own = annotation.__module__, annotation.__qualname__
            if "." in own[1] or own[0] == "__main__":
                return self.fields_of(annotation)
            self._use(*own)
            return f"{annotation.__name__} | {self.fields_of(annotation)}"
        if issubclass(annotation, Enum) and "." not in annotation.__qualname__:
            self._use(annotation.__module__, annotation.__name__)
            return annotation.__name__
        if annotation.__module__ == "pydantic.networks":  # EmailStr, HttpUrl: text that is checked
            return "str"
        parent = next(
            (one for one in (str, bool, int, float) if issubclass(annotation, one)), None
        )
        return PLAIN[parent] if parent is not None else "object"

    def _use(self, module: str, name: str) -> None:
        self.imports.add((module, name))


def camel_case(name: str) -> str:
    """Return ``user.profile_changed`` as ``UserProfileChanged``."""
    parts = name.replace(".", "_").split("_")
    return "".join(part[:1].upper() + part[1:] for part in parts)
