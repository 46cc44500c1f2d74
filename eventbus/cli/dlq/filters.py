"""The options that say which dead letters a command is about."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Annotated

import typer

from eventbus.cli.moments import moment
from eventbus.delivery import Reason
from eventbus.errors import SubjectError
from eventbus.subject import check_pattern

if TYPE_CHECKING:
    from eventbus.ops.deadletters import Where

__all__ = ("filtered",)

_HELP = "Which letters"


def _option(help: str, metavar: str | None = None, *names: str) -> typer.models.OptionInfo:
    made: typer.models.OptionInfo = typer.Option(
        *names, help=help, metavar=metavar, rich_help_panel=_HELP
    )
    return made


def _where(  # noqa: PLR0913 - one for each condition
    *,
    service: Annotated[str | None, _option("Of this service.")] = None,
    listener: Annotated[
        str | None, _option("Of this listener: its name, or service.listener.")
    ] = None,
    event: Annotated[
        str | None, _option("Of this event, or of a pattern of events: user.created, user.*.")
    ] = None,
    reason: Annotated[Reason | None, _option("Dead for this reason.")] = None,
    error: Annotated[
        str | None, _option("With this type of error, or its last part: ValueError.", "TYPE")
    ] = None,
    fingerprint: Annotated[
        str | None, _option("Of one kind of failure, as `list --groups` tells it.", "MARK")
    ] = None,
    key: Annotated[str | None, _option("Whose event has this ordering key.")] = None,
    tag: Annotated[str | None, _option("Whose event has this tag.")] = None,
    since: Annotated[
        str | None, _option("Stored in the last 2h, or since 2026-03-01T10:00Z.", "TIME")
    ] = None,
    until: Annotated[str | None, _option("Stored before that time, or 2h ago.", "TIME")] = None,
    redriven: Annotated[
        bool | None,
        _option("That were redriven, or were not.", None, "--redriven/--not-redriven"),
    ] = None,
) -> "Where":
    from eventbus.ops.deadletters import Where

    if listener is not None and "." in listener:
        owner, _, listener = listener.partition(".")
        if service not in (None, owner):
            raise typer.BadParameter(f"--listener {owner}.{listener} isn't of service {service}")
        service = owner
    return Where(
        service=service,
        listener=listener,
        event=None if event is None else _pattern(event),
        reason=reason,
        error=error,
        fingerprint=fingerprint,
        key=key,
        tag=tag,
        since=None if since is None else moment("--since", since),
        until=None if until is None else moment("--until", until),
        redriven=redriven,
    )


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a filter; it gets them as one `Where`, named ``where``."""
    own = inspect.signature(command).parameters
    filters = inspect.signature(_where).parameters

    @wraps(command)
    def run(**given: object) -> None:
        conditions = {name: given.pop(name) for name in filters}
        command(where=_where(**conditions), **given)  # type: ignore[arg-type]

    kept = [one for name, one in own.items() if name != "where"]
    run.__signature__ = inspect.Signature([*kept, *filters.values()])  # type: ignore[attr-defined]
    run.__annotations__ = {**command.__annotations__, **_where.__annotations__, "return": None}
    del run.__annotations__["where"]
    return run


def _pattern(event: str) -> str:
    try:
        return event if event == "unknown" else check_pattern(event)
    except SubjectError as exc:
        raise typer.BadParameter(str(exc), param_hint="--event") from exc
