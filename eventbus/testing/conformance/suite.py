"""`DriverConformance`: all tests of the suite, on the drivers of one place."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from eventbus.testing.conformance.bench import Bench, Place
from eventbus.testing.conformance.carrying import Carrying
from eventbus.testing.conformance.committing import Committing
from eventbus.testing.conformance.ordering import Ordering
from eventbus.testing.conformance.scheduling import Scheduling
from eventbus.testing.conformance.storing import Storing

__all__ = ("DriverConformance",)


@pytest.mark.asyncio
class DriverConformance(Carrying, Storing, Scheduling, Ordering, Committing):
    """Every test is one promise of `eventbus.drivers.base.Driver`; give the fixture `place`."""

    @pytest.fixture
    def place(self) -> Place:
        """Give the place; a subclass does."""
        raise NotImplementedError("override the fixture 'place'")

    @pytest.fixture
    async def bench(self, place: Place) -> AsyncIterator[Bench]:
        """Give a bench; its drivers are left, and its consumers stopped, when the test ends."""
        async with AsyncExitStack() as stack:
            bench = Bench(place, stack)
            async with bench.group:
                yield bench
                await stack.aclose()
