"""``eventbus emit``: emit one event, checked against its class."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, cast

import typer

from eventbus.cli import console
from eventbus.errors import (
    CertificateError,
    ConfigurationError,
    EventBusError,
    InvalidEventError,
    NotAuthorizedError,
)
from eventbus.headers import render_time

if TYPE_CHECKING:
    from eventbus.event import Event
    from eventbus.middleware.base import EmitOptions
    from eventbus.ops.emit import Emission
    from eventbus.registry import Registry

__all__ = ("emit",)


def _names(incomplete: str) -> list[str]:
    """Complete event names; a completion that fails completes nothing."""
    try:
        return [name for name in _registry().names() if name.startswith(incomplete)]
    except EventBusError:
        return []


def emit(  # noqa: PLR0913 - one for each option
    name: Annotated[
        str, typer.Argument(help="The event's name, like user.created.", autocompletion=_names)
    ],
    payload: Annotated[
        str, typer.Argument(metavar="JSON", help="Its payload, a JSON object; - reads stdin.")
    ],
    *,
    id: Annotated[
        str | None,
        typer.Option(help="The event's id; a repeat within the duplicate window isn't stored."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="The ordering key, instead of the key field's value.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A header. Repeatable.")
    ] = None,
    delay: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long it waits, like 90s or 2h.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Emit an event: check it, wait until it is stored, and print the receipt.

    Says so where nobody listens. Exits with 1 where the event can't be emitted.
    """
    options = _options(id, key, header or [])
    if delay is not None:
        options["delay"] = _seconds(delay)
    event = _event(name, _parsed(_read() if payload == "-" else payload))
    emission = _emitted(event, options)
    if as_json:
        console.print_json(_record(name, emission))
    else:
        _print(name, emission)


def _options(id: str | None, key: str | None, headers: list[str]) -> "EmitOptions":
    options: EmitOptions = {}
    if id is not None:
        options["id"] = id
    if key is not None:
        options["key"] = key
    pairs = [one.partition("=") for one in headers]
    for name, equals, _ in pairs:
        if not equals or not name:
            raise typer.BadParameter(f"write --header NAME=VALUE, not {name!r}")
    if pairs:
        options["headers"] = {name: value for name, _, value in pairs}
    return options


def _seconds(delay: str) -> float:
    from eventbus.duration import seconds

    try:
        return seconds(delay)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--delay") from exc


def _read() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as exc:
        raise typer.Exit(console.stop_with(f"the payload isn't UTF-8: {exc}")) from exc


def _parsed(text: str) -> dict[str, object]:
    try:
        value: object = json.loads(text)
    except json.JSONDecodeError as exc:
        line = text.splitlines()[exc.lineno - 1] if text.splitlines()[exc.lineno - 1 :] else ""
        start = max(0, exc.colno - 41)
        raise typer.Exit(
            console.stop_with(
                f"the payload isn't JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}",
                line[start : start + 80],
                " " * (exc.colno - 1 - start) + "^",
            )
        ) from exc
    except (ValueError, RecursionError) as exc:  # numbers without end, brackets without end
        raise typer.Exit(console.stop_with(f"the payload can't be read: {exc}")) from exc
    if not isinstance(value, dict):
        problem = f"the payload must be a JSON object, not {json.dumps(value)[:40]}"
        raise typer.Exit(console.stop_with(problem))
    return cast("dict[str, object]", value)


def _registry() -> "Registry":
    from eventbus.loading import search_working_directory
    from eventbus.service import EventService

    search_working_directory()
    return EventService("cli").discover()


def _event(name: str, data: dict[str, object]) -> "Event":
    from eventbus import codec
    from eventbus.ops.catalog import fields_of
    from eventbus.subject import check_event_name

    registry = _registry()
    try:
        event = registry.resolve(check_event_name(name))
    except EventBusError as error:
        raise _refused(error, *([] if registry.names() else [NOTHING_DECLARED])) from error
    try:
        return codec.validate(event, data)
    except InvalidEventError as error:
        fields = ", ".join(str(field) for field in fields_of(event))
        raise _refused(error, f"its fields are {fields}") from error


NOTHING_DECLARED = (
    "no event is declared here: run from the folder that holds schemas/, or set EVENTBUS_SCHEMAS"
)


def _emitted(event: "Event", options: "EmitOptions") -> "Emission":
    import asyncio

    from eventbus.ops.emit import emit as emit_event
    from eventbus.settings import Settings

    settings = Settings.load()
    try:
        return asyncio.run(emit_event(event, settings, options))
    except (CertificateError, ConfigurationError, NotAuthorizedError):
        raise
    except EventBusError as error:
        raise _refused(error) from error


def _refused(error: EventBusError, *more: str) -> typer.Exit:
    """Print why the event can't be emitted; the fault is in the input, so the code is 1."""
    console.fail(error, *more)
    return typer.Exit(1)


def _record(name: str, emission: "Emission") -> dict[str, object]:
    receipt = emission.receipt
    return {
        "name": name,
        "id": receipt.id,
        "stream": receipt.stream,
        "sequence": receipt.sequence,
        "duplicate": receipt.duplicate,
        "driver": receipt.driver,
        "due": None if receipt.scheduled is None else render_time(receipt.scheduled.at),
        "durables": None if emission.durables is None else list(emission.durables),
    }


def _print(name: str, emission: "Emission") -> None:
    receipt = emission.receipt
    said = "was stored before" if receipt.duplicate else "is stored"
    print(f"{name} {receipt.id} {said}: {receipt.stream} {receipt.sequence}")
    if receipt.scheduled is not None:
        print(f"it waits until {render_time(receipt.scheduled.at)}")
    if emission.durables is None:
        print("who listens isn't known: the server doesn't say")
    elif emission.durables:
        print(f"goes to {', '.join(emission.durables)}")
    else:
        print(
            f"nobody listens: no durable takes {name}. One that is made later starts with new "
            "events, unless its listener says start='all'"
        )
