"""`Debug`: logs each step that a driver is asked for."""

import logging
from collections.abc import Sequence
from typing import Self

from typing_extensions import override

from eventbus.delivery import Delivery
from eventbus.drivers.base import Consumer, ConsumerSpec, Deliver, Driver, Receipt
from eventbus.drivers.wrappers.wrapper import Send, Wrapper

__all__ = ("Debug",)

_log = logging.getLogger(__name__)


class Debug(Wrapper):
    """Logs at debug level what is handed over, delivered and started; never a payload."""

    def __init__(self, inner: Driver, *, log: logging.Logger = _log) -> None:
        super().__init__(inner)
        self._log = log

    @override
    async def __aenter__(self) -> Self:
        """Enter the driver inside."""
        self._log.debug("%s: connecting", self.name)
        await super().__aenter__()
        self._log.debug("%s: connected, %s", self.name, self.features)
        return self

    @override
    async def __aexit__(self, *exc: object) -> None:
        """Leave the driver inside."""
        await super().__aexit__(*exc)
        self._log.debug("%s: closed", self.name)

    @override
    async def provision(self, consumers: Sequence[ConsumerSpec]) -> None:
        """Create, compare or check the durables."""
        names = ", ".join(one.durable for one in consumers)
        self._log.debug("%s: provisioning %s", self.name, names or "nothing")
        await super().provision(consumers)

    @override
    async def send(self, send: Send, subject: str) -> Receipt:
        """Hand an event over."""
        self._log.debug("%s: sending %s", self.name, subject)
        try:
            receipt = await send()
        except Exception as exc:
            self._log.debug("%s: %s failed: %s: %s", self.name, subject, type(exc).__name__, exc)
            raise
        self._log.debug("%s: %s is %s", self.name, subject, receipt)
        return receipt

    @override
    async def consume(self, consumer: ConsumerSpec, deliver: Deliver) -> Consumer:
        """Start a consumer, and log each delivery."""
        self._log.debug("%s: consuming %s", self.name, consumer.durable)

        def logged(delivery: Delivery) -> None:
            self._log.debug(
                "%s: %s gets %s:%d, delivery %d",
                self.name,
                consumer.durable,
                delivery.stream,
                delivery.sequence,
                delivery.deliveries,
            )
            deliver(delivery)

        return await super().consume(consumer, logged)
