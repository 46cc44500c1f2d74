"""What every contestant carries and is measured by: one payload, one result, one way to time."""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

__all__ = ("Case", "Meter", "Result", "in_flight", "payload", "percentile")

STREAM = "EVENTS"
SUBJECT = "events.order.placed"


def payload(number: int) -> dict[str, object]:
    """Return the fields of an event: about 260 bytes as JSON."""
    return {
        "order_id": f"o-{number:08d}",
        "customer_id": f"c-{number % 1000:05d}",
        "email": "ada.lovelace@example.org",
        "amount": 129.9 + number % 100,
        "currency": "EUR",
        "items": ["sku-1001", "sku-1002", "sku-1003"],
        "express": number % 2 == 0,
        "address": "12 St James's Square, London SW1Y 4LE, United Kingdom",
        "note": None,
        "at_ns": 0,
    }


@dataclass(frozen=True, slots=True)
class Result:
    """What one run took."""

    events: int
    seconds: float
    cpu: float
    """Seconds of processor time of the measured process alone; the steadier figure."""
    latencies_us: tuple[float, ...] = ()
    notes: dict[str, object] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """Return what is compared."""
        found = {
            "per_second": self.events / self.seconds,
            "cpu_us": self.cpu / self.events * 1e6,
        }
        if self.latencies_us:
            found["p50_us"] = percentile(self.latencies_us, 0.50)
            found["p99_us"] = percentile(self.latencies_us, 0.99)
        return found


Case = Callable[[str, int], Awaitable[Result]]
"""``case(url, events)``: connect, warm up, measure, close."""


class Meter:
    """Times a block by the wall and by the processor, without the garbage of what came before.

    The collector is set as `eventbus run` sets it, for all contestants: its rounds over what was
    imported take whole turns of the loop, at moments that are chance.
    """

    def __enter__(self) -> "Meter":
        """Begin."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self.seconds = time.perf_counter() - self._began[0]
        self.cpu = time.process_time() - self._began[1]

    def result(self, events: int, latencies_us: tuple[float, ...] = ()) -> Result:
        """Return it as the result of so many events."""
        return Result(events, self.seconds, self.cpu, latencies_us)


def percentile(values: tuple[float, ...], part: float) -> float:
    """Return the value that a part of all don't exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


async def in_flight(emit: Callable[[int], Awaitable[object]], events: int, width: int) -> None:
    """Emit so many events, never more than ``width`` without an answer."""
    numbers = iter(range(events))

    async def work() -> None:
        for number in numbers:
            await emit(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(width):
            group.create_task(work())
