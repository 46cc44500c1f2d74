"""``eventbus relay``, and ``eventbus outbox status``, ``retry`` and ``prune``."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from eventbus.cli import console
from eventbus.cli.session import Json

if TYPE_CHECKING:
    from eventbus.ops.outbox import OutboxStatus
    from eventbus.settings import Settings
    from eventbus.stores.base import Row

__all__ = ("outbox", "prune", "relay", "retry", "status")

outbox = typer.Typer(
    no_args_is_help=True,
    help="Look at the events that wait in the database for their relay, and at those set aside.",
)


def relay(
    *,
    once: Annotated[bool, typer.Option("--once", help="End once nothing waits any more.")] = False,
) -> None:
    """Take what all services emitted in transactions to the stream, until SIGTERM or Ctrl-C.

    Not needed where the services do it themselves (relay=True). Several may run. The outbox is
    in EVENTBUS_STORE_URL.
    """
    if not once:
        from eventbus import runner

        raise typer.Exit(runner.run(["eventbus.ops.relaying:events"]))
    from eventbus.ops import outbox as ops

    print(f"{_counted(asyncio.run(ops.drain(_settings())), 'event')} relayed")


@outbox.command()
def status(*, as_json: Json = False) -> None:
    """Say how much waits, how long the oldest has, and what was set aside and why."""
    from eventbus.ops import outbox as ops

    found = asyncio.run(ops.status(_settings()))
    if as_json:
        console.print_json(_record(found))
    else:
        _print(found)


@outbox.command()
def retry(
    numbers: Annotated[
        list[int] | None, typer.Argument(metavar="NUMBER", min=1, help="As status shows them.")
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All that were set aside.")] = False,
    as_json: Json = False,
) -> None:
    """Have events that were set aside tried again."""
    from eventbus.ops import outbox as ops

    if bool(numbers) == everything:
        raise typer.Exit(console.stop_with("which events? Give their numbers, or --all", code=2))
    count = asyncio.run(ops.retry(_settings(), None if everything else numbers))
    if as_json:
        console.print_json({"retried": count})
    else:
        print(f"{_counted(count, 'event')} will be tried again")


@outbox.command()
def prune(
    *,
    older_than: Annotated[
        str, typer.Option(metavar="TIME", help="Set aside at least so long ago, such as 30d.")
    ],
    as_json: Json = False,
) -> None:
    """Remove events that were set aside, for good. What was relayed isn't kept anyway."""
    from eventbus.duration import seconds
    from eventbus.ops import outbox as ops

    try:
        age = seconds(older_than)
    except ValueError as exc:
        raise typer.Exit(console.stop_with(f"--older-than: {exc}", code=2)) from exc
    count = asyncio.run(ops.prune(_settings(), older_than=age))
    if as_json:
        console.print_json({"removed": count})
    else:
        print(f"{_counted(count, 'event')} removed")


def _settings() -> "Settings":
    from eventbus.settings import Settings

    return Settings.load()


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _record(found: "OutboxStatus") -> dict[str, object]:
    return {
        "pending": found.state.pending,
        "oldest_seconds": round(found.state.oldest, 3),
        "quarantined": found.state.quarantined,
        "set_aside": [_row(one) for one in found.quarantined],
    }


def _row(row: "Row") -> dict[str, object]:
    from eventbus.headers import render_time

    return {
        "number": row.sequence,
        "event": row.name,
        "id": row.message.id,
        "emitted_at": render_time(row.created_at),
        "reason": row.reason,
    }


def _print(found: "OutboxStatus") -> None:
    state = found.state
    oldest = f", the oldest for {state.oldest:.1f} s" if state.pending else ""
    print(f"{_counted(state.pending, 'event')} waiting{oldest}; {state.quarantined} set aside")
    if found.quarantined:
        rows = ((str(one.sequence), one.name, one.reason) for one in found.quarantined)
        console.table(("number", "event", "why it can't go"), rows)
