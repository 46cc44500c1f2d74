"""Upcasts: turn the payload of an old version of an event into that of a newer one; pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import JsonValue

from eventbus.errors import DeclarationError, SubjectError, UpcastError
from eventbus.subject import check_event_name

__all__ = ("Payload", "Upcast", "upcast")

Payload: TypeAlias = dict[str, JsonValue]
"""The fields of an event as they are in JSON: times are strings, for example."""


@dataclass(frozen=True, slots=True)
class Upcast:
    """One step from a version of an event to a newer one; calling it takes the step."""

    name: str
    from_version: int
    to_version: int
    function: Callable[[Payload], Payload]

    def __call__(self, data: Payload) -> Payload:
        """Return the payload of the newer version.

        Raises:
            UpcastError: The function raises, or gives back something else than a dict.
        """
        try:
            newer: object = self.function(data)
        except Exception as exc:
            raise UpcastError(f"{self} raised {type(exc).__name__}") from exc
        if not isinstance(newer, dict):
            raise UpcastError(f"{self} gave {type(newer).__name__}, not the payload as a dict")
        return newer

    def __str__(self) -> str:
        """Return it in words, as errors name it."""
        return f"the upcast of '{self.name}' from version {self.from_version} to {self.to_version}"


def upcast(
    name: str, *, from_version: int, to_version: int | None = None
) -> Callable[[Callable[[Payload], Payload]], Upcast]:
    """Declare how the payload of a version becomes that of the next one.

    ::

        @upcast("user.created", from_version=1)
        def split_name(data: Payload) -> Payload:
            first, _, last = str(data.pop("name")).partition(" ")
            return data | {"first": first, "last": last}

    It is known to a service where it stands in the module of the event's class, in a schema
    package, or is given to `Registry.register_upcast`. It gets a dict of its own and may change
    it. An event that it fails on becomes a dead letter. Steps follow one another up to the
    version that a listener takes; that they do is checked when the service starts.

    Args:
        name: The event's name.
        from_version: The version that it takes.
        to_version: The version that it makes; the next one where not given.

    Raises:
        DeclarationError: The name is wrong, or the versions don't go up.
    """
    to_version = from_version + 1 if to_version is None else to_version
    try:
        check_event_name(name)
    except SubjectError as exc:
        raise DeclarationError(f"upcast: {exc}") from exc
    if from_version < 1 or to_version <= from_version:
        raise DeclarationError(
            f"upcast of '{name}' from version {from_version} to {to_version}: versions begin at 1, "
            "and an upcast leads to a newer one, so that no chain goes in a circle"
        )

    def declare(function: Callable[[Payload], Payload]) -> Upcast:
        return Upcast(name, from_version, to_version, function)

    return declare
