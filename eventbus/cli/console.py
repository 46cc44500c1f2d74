"""How commands speak: results on stdout, errors on stderr, color where it is wanted."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO, cast

from eventbus.errors import (
    CertificateError,
    ConfigurationError,
    DriverError,
    EventBusError,
    NotAuthorizedError,
    SchemaError,
)

__all__ = (
    "colored",
    "exit_code",
    "fail",
    "fail_all",
    "leaves",
    "print_json",
    "say_stopped",
    "stop_with",
    "table",
)

_WRONG_SET_UP = (CertificateError, ConfigurationError, NotAuthorizedError, SchemaError)
"""What another try can't mend."""


def fail(error: EventBusError, *more: str) -> int:
    """Print an error as one line, then ``more`` lines that help, and return the exit code.

    2 where something is used or set up wrongly, else 1.
    """
    return stop_with(f"{error} [{error.code}]", *more, code=exit_code(error))


def exit_code(error: EventBusError) -> int:
    """Return the code that a process ends with for an error."""
    return 2 if isinstance(error, _WRONG_SET_UP) else 1


def stop_with(problem: str, *more: str, code: int = 1) -> int:
    """Print a problem and lines that help to stderr, and return the exit code."""
    print(f"{_painted('error:', '31;1', sys.stderr)} {problem}", file=sys.stderr)
    for line in more:
        print(f"  {line}", file=sys.stderr)
    return code


def fail_all(group: BaseExceptionGroup[BaseException]) -> int:
    """Print each error of a group, and return the highest exit code.

    Raises:
        BaseExceptionGroup: It also holds what isn't an error of the bus.
    """
    errors = [one for one in leaves(group) if isinstance(one, EventBusError)]
    if len(errors) < len(leaves(group)):
        raise group
    return max(fail(one) for one in errors)


def say_stopped(group: BaseExceptionGroup[BaseException]) -> None:
    """Print how far it was when a signal stopped it in order.

    Raises:
        BaseExceptionGroup: It also holds what a stop doesn't cause.
    """
    errors = [one for one in leaves(group) if isinstance(one, DriverError)]
    if len(errors) < len(leaves(group)):
        raise group
    for one in errors:
        print(f"{_painted('stopped:', '33;1', sys.stderr)} {one}", file=sys.stderr)


def leaves(error: BaseException) -> list[BaseException]:
    """Return the errors that a group holds at any depth; the error itself where it is none."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return [leaf for one in group.exceptions for leaf in leaves(one)]
    return [error]


def print_json(value: object) -> None:
    """Print a value for programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: int = 99) -> None:
    """Print rows under a head; columns from the ``right``-th on are aligned to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for index, column in enumerate(columns):
        made.add_column(column, justify="right" if index >= right else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    Console().print(made)


def colored(stream: TextIO) -> bool:
    """Tell whether a stream shows colors: a terminal, and nobody set NO_COLOR."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _painted(text: str, style: str, stream: TextIO) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if colored(stream) else text
