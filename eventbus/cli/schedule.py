"""``eventbus schedule list`` and ``cancel``."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from eventbus.cli import console
from eventbus.cli.session import Json, ask
from eventbus.errors import SubjectError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventbus.drivers.jetstream.driver import JetStreamDriver
    from eventbus.ops.schedules import Entry

__all__ = ("cancel", "list_schedules", "schedule")

schedule = typer.Typer(
    no_args_is_help=True,
    help="Look at what waits for its time: delayed events, and the next tick of what recurs.",
)


@schedule.command("list")
def list_schedules(
    *,
    service: Annotated[str | None, typer.Option(help="Of this service.")] = None,
    event: Annotated[
        str | None, typer.Option(help="Of this event, or of a pattern: reminder.due, reminder.*.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    as_json: Json = False,
) -> None:
    """List what waits, what comes first in front."""
    from eventbus.ops import schedules

    pattern = None if event is None else _pattern(event)

    async def find(driver: "JetStreamDriver") -> "list[Entry]":
        return await schedules.listed(
            driver, driver.letterbox.subjects, service=service, event=pattern
        )

    found = ask(find)
    if as_json:
        console.print_json([_record(one) for one in found[:limit]])
    elif found:
        _print(found[:limit], len(found))
    else:
        print("nothing waits")


@schedule.command()
def cancel(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="Who emitted it.")],
    names: Annotated[
        list[str],
        typer.Argument(metavar="ID...", help="Events' ids, or the names of what recurs."),
    ],
    *,
    as_json: Json = False,
) -> None:
    """Cancel delayed events, or the next tick of what recurs, for good.

    Of a recurring event that is declared it skips one tick. Exits with 1 where one of them isn't
    there: it has come, or nothing ever waited under that id.
    """
    from eventbus.ops import schedules

    async def cancel_all(driver: "JetStreamDriver") -> dict[str, bool]:
        subjects = driver.letterbox.subjects
        return {
            name: await schedules.cancel(driver, subjects, service, name)
            for name in dict.fromkeys(names)
        }

    done = ask(cancel_all)
    if as_json:
        console.print_json(
            [{"service": service, "name": name, "cancelled": one} for name, one in done.items()]
        )
    else:
        for name, one in done.items():
            print(f"{service} {name} {'is cancelled' if one else _TOO_LATE}")
    if not all(done.values()):
        raise typer.Exit(1)


_TOO_LATE = "isn't there: it has come, or nothing waited under that name"


def _pattern(event: str) -> str:
    from eventbus.subject import check_pattern

    try:
        return check_pattern(event)
    except SubjectError as exc:
        raise typer.BadParameter(str(exc), param_hint="--event") from exc


def _record(one: "Entry") -> dict[str, object]:
    from eventbus.headers import render_time

    return {
        "service": one.service,
        "event": one.event,
        "id": one.id,
        "at": render_time(one.at),
        "key": one.key,
        "stored_at": None if one.stored_at is None else render_time(one.stored_at),
        "recurring": one.recurring or None,
        "rule": one.rule or None,
    }


def _print(entries: "Sequence[Entry]", count: int) -> None:
    from eventbus.clock import SystemClock

    now = SystemClock().now()
    rows = (
        (
            f"{one.at:%Y-%m-%d %H:%M:%S}Z",
            _left(one.at, now),
            one.service,
            one.event,
            one.name,
            one.rule,
        )
        for one in entries
    )
    console.table(("at", "in", "service", "event", "id or name", "rule"), rows)
    if count > len(entries):
        print(f"{len(entries)} of {count}; --limit shows more")


def _left(at: datetime, now: datetime) -> str:
    """Return how long that is from now, in its largest unit."""
    left = (at - now).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if left >= 2 * length:
            return f"{left / length:.0f}{unit}"
    return f"{max(0, left):.0f}s"
