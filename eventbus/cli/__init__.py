"""The command line; `main` is the ``eventbus`` command.

One file per command: parse, call, print. Nothing here imports nats, OpenTelemetry or
pydantic-settings before a command needs it, so that help and completion answer at once.
"""

import sys

__all__ = ("main",)


def main() -> None:
    """Run the command that the arguments name, and exit with its code.

    0 is success, 1 a failure, 2 a wrong use or a wrong configuration.
    """
    try:
        from eventbus.cli.app import run
    except ModuleNotFoundError as exc:
        if exc.name not in ("typer", "rich"):
            raise
        print(
            f"error: the command line needs {exc.name}; install it with "
            "pip install 'eventbus[cli]' [configuration]",
            file=sys.stderr,
        )
        sys.exit(2)
    sys.exit(run())
