"""The conformance suite on our own drivers, bare and wrapped."""

import itertools
from collections.abc import Callable

import pytest

from eventbus import Retry, Settings
from eventbus.drivers.base import Driver
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.drivers.memory import MemoryBroker, MemoryDriver
from eventbus.drivers.sync import SyncDriver, SyncHub
from eventbus.drivers.wrappers import Debug, Fallback, Limited, Monitored, Retrying, Timeout
from eventbus.embedded import NatsServer
from eventbus.testing.clock import VirtualClock
from eventbus.testing.conformance import DriverConformance, Place

_NUMBERS = itertools.count(1)


def all_of(driver: Driver) -> Driver:
    """Wrap a driver in everything that it may be wrapped in."""
    inside = Retrying(Timeout(driver, 60), Retry(attempts=2, delays=(0,)))
    return Monitored(Debug(Limited(inside, 64)))


def memory(wrap: Callable[[Driver], Driver] = lambda one: one) -> Place:
    clock = VirtualClock()
    broker = MemoryBroker(clock)
    return Place(lambda _: wrap(MemoryDriver(broker)), clock, clock.advance)


def sync(wrap: Callable[[Driver], Driver] = lambda one: one) -> Place:
    clock = VirtualClock()
    hub = SyncHub(clock)
    return Place(lambda _: wrap(SyncDriver(hub)), clock, clock.advance)


def jetstream(server: NatsServer, wrap: Callable[[Driver], Driver] = lambda one: one) -> Place:
    namespace = f"conform{next(_NUMBERS)}"
    settings = Settings(
        nats_url=server.url, namespace=namespace, max_bytes=8 * 2**20, later_max_bytes=2**23
    )
    return Place(
        lambda service: wrap(JetStreamDriver(settings, service=service)), namespace=namespace
    )


class TestSync(DriverConformance):
    @pytest.fixture
    def place(self) -> Place:
        return sync()


class TestWrappedSync(DriverConformance):
    @pytest.fixture
    def place(self) -> Place:
        return sync(all_of)


class TestMemory(DriverConformance):
    @pytest.fixture
    def place(self) -> Place:
        return memory()


class TestWrappedMemory(DriverConformance):
    @pytest.fixture
    def place(self) -> Place:
        return memory(all_of)


class TestFallback(DriverConformance):
    @pytest.fixture
    def place(self) -> Place:
        clock = VirtualClock()
        one, two = MemoryBroker(clock), MemoryBroker(clock)
        return Place(
            lambda _: Fallback(MemoryDriver(one), MemoryDriver(two)), clock, clock.advance
        )


class TestJetStream(DriverConformance):
    @pytest.fixture
    def place(self, shared_server: NatsServer) -> Place:
        return jetstream(shared_server)


class TestWrappedJetStream(DriverConformance):
    @pytest.fixture
    def place(self, shared_server: NatsServer) -> Place:
        return jetstream(shared_server, all_of)
