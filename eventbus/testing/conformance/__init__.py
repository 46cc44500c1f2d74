"""The suite that every driver passes, within the features it declares.

::

    class TestSpoolDriver(DriverConformance):
        @pytest.fixture
        def place(self, tmp_path: Path) -> Place:
            return Place(lambda service: SpoolDriver(tmp_path))

It needs pytest and pytest-asyncio. A test of what the driver says it can't do is skipped, or checks
that asking for it is refused.
"""

from eventbus.testing.conformance.bench import Bench, Inbox, Place
from eventbus.testing.conformance.suite import DriverConformance

__all__ = ("Bench", "DriverConformance", "Inbox", "Place")
