"""How a declared configuration and the server's differ, and who owns it; pure.

Only declared fields count: the server adds some of its own.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import JsonValue

from eventbus.drivers.jetstream.api import Table, table, text

__all__ = (
    "BESIDE",
    "HASH",
    "LISTENER",
    "OWNER",
    "Difference",
    "Rule",
    "any_change",
    "described",
    "differences",
    "edited",
    "extended",
    "merged",
    "more",
    "owner_of",
    "switched_on",
)

OWNER = "eventbus.owner"
"""Metadata key: ``eventbus`` on streams, the service on durables."""
LISTENER = "eventbus.listener"
"""Metadata key, on durables."""
BESIDE = "eventbus.beside"
"""Metadata key, on durables for the events of one priority: the listener's own durable."""
HASH = "eventbus.hash"
"""Metadata key: the hash of what was declared."""
_SCHEMA = "eventbus.topology"
_SCHEMA_VERSION = "1"
_NANOSECONDS = ("max_age", "duplicate_window", "ack_wait", "priority_timeout")

Rule: TypeAlias = Callable[[JsonValue, JsonValue], bool]
"""``rule(declared, found)`` tells whether going to the declared value takes nothing away."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that isn't as declared."""

    field: str
    declared: JsonValue
    found: JsonValue
    additive: bool
    """Applying it takes nothing away, so that mode ``auto`` may."""

    @property
    def problem(self) -> str:
        """What differs, in words."""
        return (
            f"{self.field} is declared {_shown(self.field, self.declared)}, "
            f"the server has {_shown(self.field, self.found)}"
        )

    @property
    def kept(self) -> str:
        """The value of the setting that keeps what the server has."""
        if self.field in _NANOSECONDS and isinstance(self.found, int):
            return f"{self.found / 1e9:g}"
        return str(self.found)

    @property
    def change(self) -> str:
        """What applying it does, in words."""
        found, declared = _shown(self.field, self.found), _shown(self.field, self.declared)
        return f"{self.field} changed from {found} to {declared}"


def described(config: Table, owner: Mapping[str, str]) -> Table:
    """Return a configuration with the metadata that says whose it is and what was declared."""
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:16]
    return {**config, "metadata": {**owner, _SCHEMA: _SCHEMA_VERSION, HASH: digest}}


def owner_of(config: Table) -> str:
    """Return who owns it by its metadata, empty for nobody of ours."""
    return text(table(config.get("metadata")).get(OWNER))


def differences(
    declared: Table, found: Table, additive: Mapping[str, Rule]
) -> tuple[Difference, ...]:
    """Return the declared fields that differ; metadata isn't compared."""
    return tuple(
        Difference(field, value, found.get(field), _allowed(additive, field, value, found))
        for field, value in declared.items()
        if field != "metadata" and not _same(value, found.get(field))
    )


def merged(declared: Table, found: Table) -> Table:
    """Return what to send to update: all that was found, the declared fields on top."""
    metadata = {**table(found.get("metadata")), **table(declared.get("metadata"))}
    return {**found, **declared, "metadata": metadata}


def edited(declared: Table, found: Table) -> bool:
    """Tell whether somebody changed it after exactly this declaration was written."""
    written = table(found.get("metadata")).get(HASH)
    return written == table(declared.get("metadata")).get(HASH)


def any_change(_declared: JsonValue, _found: JsonValue) -> bool:
    """Allow it: no event is lost or skipped by it."""
    return True


def more(declared: JsonValue, found: JsonValue) -> bool:
    """Allow a higher limit; 0 and -1 are none at all."""
    if not isinstance(declared, int) or not isinstance(found, int):
        return False
    return declared <= 0 or 0 < found < declared


def switched_on(declared: JsonValue, found: JsonValue) -> bool:
    """Allow a flag to be set."""
    return declared is True and not found


def extended(declared: JsonValue, found: JsonValue) -> bool:
    """Allow a list to grow."""
    have = found if isinstance(found, list) else []
    return isinstance(declared, list) and all(one in declared for one in have)


def _allowed(additive: Mapping[str, Rule], field: str, value: JsonValue, found: Table) -> bool:
    rule = additive.get(field)
    return rule is not None and rule(value, found.get(field))


def _same(declared: JsonValue, found: JsonValue) -> bool:
    """Compare without order, without what isn't declared; the server leaves out what is empty."""
    if not declared:
        return not found
    if isinstance(declared, dict):
        return all(_same(value, table(found).get(key)) for key, value in declared.items())
    if isinstance(declared, list):
        have = found if isinstance(found, list) else []
        return len(have) == len(declared) and all(
            any(_same(one, other) for other in have) for one in declared
        )
    return declared == found


def _shown(field: str, value: JsonValue) -> str:
    if field in _NANOSECONDS and isinstance(value, int):
        return f"{value / 1e9:g} s"
    return "unset" if value is None else json.dumps(value)
