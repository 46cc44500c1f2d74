"""Load the SQL stores when they are first asked for: SQLAlchemy is slow to import, and an extra."""

from importlib import import_module
from typing import TYPE_CHECKING

from eventbus.errors import SettingsError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ("engine_of", "require_sql")


def require_sql() -> None:
    """Refuse to go on without SQLAlchemy.

    Raises:
        SettingsError: It isn't installed; the message says how to.
    """
    try:
        import_module("sqlalchemy.ext.asyncio")
    except ModuleNotFoundError as exc:
        raise SettingsError(
            f"outbox, inbox and event store need {exc.name}; pip install 'eventbus[sql]'"
        ) from exc


def engine_of(url: str) -> "AsyncEngine":
    """Return the engine for a store's URL; see `eventbus.stores.sql.engine.engine_of`.

    Raises:
        SettingsError: A package is missing, or the stores don't work with that database.
    """
    require_sql()
    from eventbus.stores.sql import engine

    return engine.engine_of(url)
