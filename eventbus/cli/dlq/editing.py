"""Another payload for a dead letter: given, or written in an editor; checked before it is sent."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, cast

import typer

from eventbus.cli import console
from eventbus.cli.dlq.session import letter_of
from eventbus.cli.emit import NOTHING_DECLARED
from eventbus.cli.session import ask
from eventbus.errors import EventBusError, InvalidEventError, UnknownEventError

if TYPE_CHECKING:
    from eventbus.ops.deadletters import Letter

__all__ = ("changed_letter",)


def changed_letter(number: int, payload: str | None) -> "Letter":
    """Return the letter of a number with another payload; without one, an editor opens.

    Where it doesn't fit the event's class, the command ends with the field errors.
    """
    from eventbus.loading import search_working_directory
    from eventbus.ops.catalog import fields_of
    from eventbus.ops.deadletters import edited
    from eventbus.service import EventService

    search_working_directory()
    registry = EventService("cli").discover()
    letter = ask(lambda driver: letter_of(driver, number))
    data = _parsed(_written(letter) if payload is None else _given(payload))
    try:
        return edited(letter, data, registry)
    except UnknownEventError as error:
        raise _refused(error, *([] if registry.names() else [NOTHING_DECLARED])) from error
    except InvalidEventError as error:
        fields = ", ".join(str(one) for one in fields_of(registry.resolve(letter.event)))
        raise _refused(error, f"its fields are {fields}") from error


def _refused(error: EventBusError, *more: str) -> typer.Exit:
    """Print why the payload can't be sent; the fault is in the input, so the code is 1."""
    console.fail(error, *more, "nothing was sent")
    return typer.Exit(1)


def _given(payload: str) -> bytes:
    return sys.stdin.buffer.read() if payload == "-" else payload.encode(errors="replace")


def _written(letter: "Letter") -> bytes:
    """Return what an editor makes of the payload."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with TemporaryDirectory(prefix="eventbus-") as folder:
        path = Path(folder) / f"{letter.event}.json"
        path.write_bytes(_readable(letter.message.body))
        before = path.read_bytes()
        try:
            subprocess.run([*shlex.split(editor), str(path)], check=True)  # noqa: S603 - the user's
        except (OSError, ValueError, subprocess.CalledProcessError) as exc:
            problem = f"the editor '{editor}' failed: {exc}; set EDITOR, or use --payload"
            raise typer.Exit(console.stop_with(problem)) from exc
        after = path.read_bytes()
    if after == before:
        raise typer.Exit(console.stop_with("the payload is as it was; nothing was sent"))
    return after


def _readable(body: bytes) -> bytes:
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False).encode() + b"\n"
    except ValueError:
        return body


def _parsed(text: bytes) -> dict[str, object]:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise typer.Exit(
            console.stop_with(f"the payload isn't JSON: {exc}; nothing was sent")
        ) from exc
    if not isinstance(value, dict):
        problem = f"the payload must be a JSON object, not {json.dumps(value)[:40]}"
        raise typer.Exit(console.stop_with(f"{problem}; nothing was sent"))
    return cast("dict[str, object]", value)
