"""The overloads module: lets type checkers see the payload in ``emit("user.created", {...})``."""

from collections.abc import Iterable

from eventbus.contracts.fields import Source, camel_case
from eventbus.event import Event, spec_of

__all__ = ("overloads",)

_HEAD = '''\
"""An `EventService` whose `emit` knows the fields of each event by its name.

Made by ``eventbus codegen types``; make it again when an event changes.
"""
# ruff: noqa
# fmt: off
'''
_CLASS = '''\
class EventService(eventbus.EventService):
    """The same service; only type checkers see a difference."""

    if TYPE_CHECKING:

        @overload  # type: ignore[override]
        async def emit(self, event: Event, /, **options: Unpack[EmitOptions]) -> Receipt: ...'''
_OVERLOAD = """
        @overload
        async def emit(
            self, event: Literal["{name}"], data: {fields}, /, **options: Unpack[EmitOptions]
        ) -> Receipt: ..."""
_LAST = """
        async def emit(  # pyright: ignore[reportIncompatibleMethodOverride]
            self, event: object, data: object = None, /, **options: Unpack[EmitOptions]
        ) -> Receipt: ...
"""
_NEEDED = frozenset(
    {
        ("typing", "TYPE_CHECKING"),
        ("typing", "Literal"),
        ("typing", "Unpack"),
        ("typing", "overload"),
        ("eventbus", "Event"),
        ("eventbus", "Receipt"),
        ("eventbus.middleware.base", "EmitOptions"),
    }
)


def overloads(events: Iterable[type[Event]]) -> str:
    """Return a module whose `EventService.emit` is typed for these events, the newest of a name.

    A field whose type only its own module can name is an ``object`` there: checked when it is
    emitted, as ever, and not before.
    """
    newest: dict[str, type[Event]] = {}
    for event in events:
        spec = spec_of(event)
        known = newest.get(spec.name)
        if known is None or spec_of(known).version < spec.version:
            newest[spec.name] = event
    source = Source()
    named = {
        name: source.fields_of(event, f"{camel_case(name)}Fields")
        for name, event in sorted(newest.items())
    }
    methods = "\n".join(_OVERLOAD.format(name=name, fields=one) for name, one in named.items())
    parts = [_HEAD + _imports(source.imports | _NEEDED), *source.classes.values()]
    return "\n\n\n".join([*parts, _CLASS + "\n" + methods + "\n" + _LAST])


def _imports(used: Iterable[tuple[str, str]]) -> str:
    modules: dict[str, list[str]] = {}
    for module, name in sorted(used):
        modules.setdefault(module, []).append(name)
    lines = [f"from {module} import {', '.join(names)}" for module, names in modules.items()]
    return "\n" + "\n".join(["import eventbus", *lines])
