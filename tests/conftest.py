"""Fixtures that every folder of tests shares."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import pytest_timeout
from hypothesis import HealthCheck, settings

from eventbus.embedded import NatsServer, find_server
from eventbus.errors import ServerNotFoundError
from tests.postgres import Postgres, PostgresMissingError

pytest_plugins = ("eventbus.testing.plugin", "pytester")

ALONE = frozenset({"architecture", "property", "simulation", "typing", "unit"})
"""The folders whose tests need no other process, so that nothing can make them late."""

# Properties are tried the same in every run, so that CI doesn't fail by luck;
# ``HYPOTHESIS_PROFILE=search`` looks for new examples, and for longer.
settings.register_profile(
    "repeat",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("search", deadline=None, max_examples=20_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))


def deploy_tools() -> dict[str, str | None]:
    """Return the programs that check the files of deploy/, with their paths; None if missing."""
    beside = str(Path(sys.executable).parent)
    return {
        name: shutil.which(name) or shutil.which(name, path=beside)
        for name in ("promtool", "hadolint")
    }


def pytest_report_header() -> list[str]:
    """Say which optional checks this machine can't do."""
    missing = [name for name, path in deploy_tools().items() if path is None]
    return [f"without {', '.join(missing)}: their checks of deploy/ are left out"] * bool(missing)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run a test against real processes once more where it fails in CI, and count that.

    Its deadlines are generous, but a shared machine can stand still for longer than any. Pytest's
    last lines name each that ran again, see CONTRIBUTING.md.
    """
    if os.environ.get("CI") != "true":
        return
    for item in items:
        if item.nodeid.split("/")[1] not in ALONE:
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give a second run a time limit of its own: one for both isn't there after it has ended one."""
    if getattr(item, "execution_count", 1) > 1:
        settings = pytest_timeout._get_item_settings(item)
        item.ihook.pytest_timeout_cancel_timer(item=item)
        item.ihook.pytest_timeout_set_timer(item=item, settings=settings)


@pytest.fixture(scope="session")
def _nats_binary() -> None:
    """Skip on a laptop, and fail in CI, where there is no nats-server."""
    try:
        find_server()
    except ServerNotFoundError as exc:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI has to test against a real server: {exc}")
        pytest.skip(str(exc))


@pytest.fixture
def nats_server(_nats_binary: None) -> Iterator[NatsServer]:
    """Give each test a server of its own, with JetStream in a fresh temporary folder."""
    with NatsServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Give a PostgreSQL; skip on a laptop without one, and fail in CI."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(Postgres())
        except PostgresMissingError as exc:
            if os.environ.get("CI") == "true":
                pytest.fail(f"CI has to test against a real PostgreSQL: {exc}")
            pytest.skip(str(exc))
        yield server


@pytest.fixture
def postgres_dsn(postgres: Postgres) -> Iterator[str]:
    """Give each test an empty database of its own, as ``postgresql://...``."""
    dsn = postgres.database()
    yield dsn
    postgres.drop(dsn)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the URL of an empty database, of each kind in turn, as SQLAlchemy writes it."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/bus.db"
    dsn: str = request.getfixturevalue("postgres_dsn")
    return dsn.replace("postgresql://", "postgresql+psycopg://", 1)
