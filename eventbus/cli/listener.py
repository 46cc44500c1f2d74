"""``eventbus listener list``, ``pause``, ``resume`` and ``replay``."""

from typing import TYPE_CHECKING, Annotated

import typer

from eventbus.cli import console
from eventbus.cli.replay import replay
from eventbus.cli.session import Json, ask

if TYPE_CHECKING:
    from eventbus.ops.listeners import ListenerView

__all__ = ("list_listeners", "listener", "pause", "resume")

listener = typer.Typer(
    no_args_is_help=True,
    help="Look at the listeners on the server, pause them in all processes, and replay to one.",
)
listener.command()(replay)

_Service = Annotated[str, typer.Argument(metavar="SERVICE", help="As list shows it.")]
_Listener = Annotated[str, typer.Argument(metavar="LISTENER", help="As list shows it.")]


@listener.command("list")
def list_listeners(*, as_json: Json = False) -> None:
    """List the listeners that have a durable, and how far they are.

    pending waits on the server, ack pending is in hand, redelivered was in hand before. Where
    nobody is waiting, nobody asks for events now.
    """
    from eventbus.ops import listeners

    views = ask(listeners.listed)
    if as_json:
        console.print_json([_record(one) for one in views])
    elif views:
        _print(views)
    else:
        print("no listener has a durable here; they are made when a service starts")


@listener.command()
def pause(
    service: _Service,
    name: _Listener,
    *,
    length: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="TIME",
            help="How long, such as 90s or 10m; until 'listener resume' where not given.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Have the server hand out nothing to a listener, in whatever process it runs.

    Its events wait, and hold their room in the stream; what is in hand is finished.
    """
    from eventbus.headers import render_time
    from eventbus.ops import listeners

    seconds = None if length is None else _seconds(length)
    until = ask(lambda driver: listeners.pause(driver, service, name, seconds=seconds))
    ends = None if until is None else render_time(until)
    if as_json:
        console.print_json({"service": service, "listener": name, "paused_until": ends})
    else:
        print(f"{service} {name} is paused until {ends or 'it is resumed'}")


@listener.command()
def resume(service: _Service, name: _Listener, *, as_json: Json = False) -> None:
    """End a listener's pause."""
    from eventbus.ops import listeners

    was_paused = ask(lambda driver: listeners.resume(driver, service, name))
    if as_json:
        console.print_json({"service": service, "listener": name, "was_paused": was_paused})
    else:
        print(f"{service} {name} {'goes on' if was_paused else 'was not paused'}")


def _seconds(length: str) -> float:
    from eventbus.duration import seconds

    try:
        given = seconds(length)
    except ValueError as exc:
        raise typer.Exit(console.stop_with(f"--for: {exc}", code=2)) from exc
    if not given:
        raise typer.Exit(console.stop_with("--for: 0 is no pause", code=2))
    return given


def _record(view: "ListenerView") -> dict[str, object]:
    return {
        "service": view.service,
        "listener": view.listener,
        "pending": view.pending,
        "ack_pending": view.ack_pending,
        "redelivered": view.redelivered,
        "waiting": view.waiting,
        "paused": view.paused,
        "durables": [
            {"durable": one.durable, "filters": list(one.filters)} for one in view.durables
        ],
    }


def _print(views: "tuple[ListenerView, ...]") -> None:
    numbers = ("pending", "ack pending", "redelivered", "waiting")
    rows = (
        (
            one.service,
            one.listener,
            "paused" if one.paused else "",
            *(str(each) for each in (one.pending, one.ack_pending, one.redelivered, one.waiting)),
        )
        for one in views
    )
    console.table(("service", "listener", "", *numbers), rows, right=3)
