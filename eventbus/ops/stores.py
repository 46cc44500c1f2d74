"""The database of outbox, inbox and event store: making its tables."""

from eventbus.settings import Settings
from eventbus.stores.choice import engine_of

__all__ = ("init",)


async def init(settings: Settings) -> tuple[str, ...]:
    """Create the tables that are missing, and return their names; what is there stays as it is.

    Raises:
        SettingsError: The stores don't work with that database, or a package is missing.
        StoreError: It can't be reached, or refuses.
    """
    engine = engine_of(settings.store_url)
    from eventbus.stores.sql.engine import create_tables

    try:
        return await create_tables(engine)
    finally:
        await engine.dispose()
