"""The process: run services with their telemetry, obey signals, and end in time.

The only place with signal handlers.
"""

import asyncio
import faulthandler
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, TypeVar, cast

from eventbus.errors import ConfigurationError, EventBusError, did_you_mean
from eventbus.loading import load_all
from eventbus.registry import Registry
from eventbus.service import EventService

if TYPE_CHECKING:  # loaded when a process starts, so that other commands don't wait for them
    from eventbus.settings import Settings
    from eventbus.telemetry.metrics import Metrics
    from eventbus.worker.health import Endpoint, Health

__all__ = (
    "Instruments",
    "Stop",
    "end_with_parent",
    "instrument",
    "run",
    "run_until_stopped",
    "serve",
    "work_only",
)

ResultT = TypeVar("ResultT")

_log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
CLOSE_TIME = 1.0
"""Seconds of the grace period kept for closing connections."""
FLUSH_TIME = 5.0
"""Seconds of it kept for exporting spans, where there is tracing."""
SLACK = 2.0
"""Seconds after the grace period until a process that is stuck ends by force."""


class Stop:
    """A process's order to end: the first SIGTERM or SIGINT gives it, a second ends at once.

    Where a listener blocks the event loop, or a thread that it started doesn't end, the process
    prints where it is stuck, and ends with code 1 after `grace`.
    """

    def __init__(self) -> None:
        self.grace = 0.0
        """Seconds after which it ends by force; 0 for never."""
        self._asked = asyncio.Event()
        self._signal: signal.Signals | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def asked(self) -> bool:
        """Whether the order was given."""
        return self._signal is not None or self._asked.is_set()

    @property
    def code(self) -> int:
        """The exit code of a process that a signal ended before it was done."""
        return 0 if self._signal is None else 128 + self._signal

    def ask(self) -> None:
        """Give the order, as a signal does; call it on the event loop."""
        self._asked.set()

    async def wait(self) -> None:
        """Wait for the order."""
        await self._asked.wait()

    async def before(self, work: Coroutine[object, object, ResultT]) -> ResultT | None:
        """Do some work and return its result; the order cancels it and returns None.

        Raises:
            ExceptionGroup: What the work raised.
        """
        async with asyncio.TaskGroup() as group:
            working = group.create_task(work)
            stopping = group.create_task(self.wait())
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            working.cancel()
        return None if working.cancelled() else working.result()

    @contextmanager
    def installed(self, loop: asyncio.AbstractEventLoop) -> Generator[None]:
        """Obey signals within; the handlers that were there come back afterwards."""
        self._loop = loop
        before = {one: signal.signal(one, self._on_signal) for one in STOP_SIGNALS}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        # Not loop.add_signal_handler: a stuck loop would never see the second signal.
        if self._signal is not None:
            os._exit(128 + number)
        self._signal = signal.Signals(number)
        if self.grace:
            # Never called off: at its exit Python waits for threads, and one may be stuck.
            faulthandler.dump_traceback_later(self.grace, exit=True)
        assert self._loop is not None, "handlers are installed with a loop"
        self._loop.call_soon_threadsafe(self._asked.set)


def run_until_stopped(main: Callable[[Stop], Coroutine[object, object, int]]) -> int:
    """Run ``main(stop)`` on an event loop that obeys signals; return what it returns.

    uvloop is used where it is installed.
    """
    stop = Stop()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner, stop.installed(runner.get_loop()):
        return runner.run(main(stop))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop


def end_with_parent() -> None:
    """Order this process to stop when its standard input closes: its parent is gone."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def run(targets: Sequence[str], *, queues: Sequence[str] = ()) -> int:
    """Run the services that ``MODULE:NAME`` targets name, as this process; return its exit code.

    It works until SIGTERM or SIGINT. Then it isn't ready any more, pulls no more, lets what runs
    finish, hands the rest back, flushes telemetry, and returns 0, all within the grace period. A
    server that is down is waited for. Several services share the process and end together.

    Args:
        targets: What to run, see `eventbus.loading.load`.
        queues: Work only the listeners of these queues; all where empty.

    Raises:
        EventBusError, ExceptionGroup of them: What is set up wrongly, or ended a service.
    """
    try:
        return run_until_stopped(lambda stop: _main(targets, queues, stop))
    except Exception as exc:
        if _expected(exc):
            raise
        _log.critical("process.failed", exc_info=exc)
        return 1


def _expected(error: Exception) -> bool:
    """Tell whether it is of the bus, or a group of nothing else."""
    if isinstance(error, ExceptionGroup):
        group = cast("ExceptionGroup[Exception]", error)
        return all(_expected(one) for one in group.exceptions)
    return isinstance(error, EventBusError)


def _main(
    targets: Sequence[str], queues: Sequence[str], stop: Stop
) -> Coroutine[object, object, int]:
    """Prepare the process, and return what remains to be done on the event loop."""
    from eventbus.settings import Settings
    from eventbus.telemetry import logs

    settings = Settings.load()
    stop.grace = settings.grace + SLACK
    logs.configure(settings)
    services = load_all(targets)
    if queues:
        work_only(services, queues)
    return serve(services, settings, stop)


def work_only(services: Sequence[EventService], queues: Sequence[str]) -> None:
    """Leave the listeners of all other queues to other processes.

    Raises:
        ConfigurationError: No listener of these services is in one of the queues.
    """
    known = {queue for service in services for queue in service.queues()}
    for queue in queues:
        if queue not in known:
            raise ConfigurationError(
                f"no listener here is in queue '{queue}' "
                f"(there are: {', '.join(sorted(known)) or 'none'}){did_you_mean(queue, known)}"
            )
    for service in services:
        service.work_only(queues)


async def serve(services: Sequence[EventService], settings: "Settings", stop: Stop) -> int:
    """Run services until ``stop`` is asked or one fails, which stops the others; return 0.

    Raises:
        ExceptionGroup: What ended a service.
        SettingsError: The port of the metrics is taken.
    """
    from eventbus.worker.health import watch_loop

    instruments = instrument(services, settings)
    endpoint = _endpoint(services, settings, instruments)
    # At most half: listeners need time too.
    grace = settings.grace - min(settings.grace / 2, CLOSE_TIME + instruments.close_time)
    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(
                watch_loop(instruments.health, instruments.metrics.set_loop_lag)
            )
            working = [group.create_task(_work(one, stop, grace)) for one in services]
            await asyncio.wait(working)
            watching.cancel()
    finally:
        if endpoint is not None:
            endpoint.stop()
        await instruments.aclose()
    return 0


async def _work(service: EventService, stop: Stop, grace: float) -> None:
    """Run one service; an order to stop also ends the wait for a server that is down."""
    started = asyncio.Event()

    async def announce() -> None:
        started.set()
        _spare_the_collector()
        listeners = [one.listener for one in service.subscriptions]
        _log.info("service.started", extra={"service": service.name, "listeners": listeners})

    service.background(announce)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(service.run())
        stopping = group.create_task(stop.wait())
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if started.is_set():
            await service.stop(grace)
        running.cancel()


def _spare_the_collector() -> None:
    """Take what stays for good out of the garbage collector's rounds, and make them fewer.

    Events leave no cycles, but bring many short-lived objects: else it takes a sixth of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _endpoint(
    services: Sequence[EventService], settings: "Settings", instruments: "Instruments"
) -> "Endpoint | None":
    from eventbus.worker.health import Endpoint

    if settings.metrics_port is None:
        return None
    host = settings.metrics_host
    endpoint = Endpoint(
        instruments.health, instruments.metrics.exposition, host=host, port=settings.metrics_port
    )
    endpoint.start()
    address = f"[{host}]" if ":" in host else host
    process = "+".join(service.name for service in services)
    sys.stdout.write(f"{process} metrics http://{address}:{endpoint.port}/metrics\n")
    sys.stdout.flush()
    return endpoint


@dataclass(frozen=True, slots=True)
class Instruments:
    """What a process shows of its services."""

    metrics: "Metrics"
    health: "Health"
    ends: tuple[Callable[[], None], ...]

    @property
    def close_time(self) -> float:
        """Seconds that `aclose` may take."""
        return FLUSH_TIME if self.ends else 0.0

    async def aclose(self) -> None:
        """Export the spans that are left."""
        await asyncio.gather(*(asyncio.to_thread(end) for end in self.ends))


def instrument(services: Sequence[EventService], settings: "Settings") -> Instruments:
    """Give the services of a process metrics, log lines, health, and traces where wanted.

    Call it once, before they start. `run` does; a web application that starts its service itself
    calls it too, and `eventbus.telemetry.logs.configure` where it wants the bus's log format.

    Raises:
        SettingsError: Tracing is set up wrongly.
        DeclarationError: One of them is running.
    """
    from eventbus.telemetry import tracing
    from eventbus.telemetry.logs import LogContext, LogObserver
    from eventbus.telemetry.metrics import Metrics
    from eventbus.worker.health import Health

    registries = [one.registry for one in services]
    if any(one.takes_any for service in services for one in service.subscriptions):
        registries.append(_declared(settings))
    metrics = Metrics(lambda name: any(name in registry for registry in registries))
    health = Health()
    ends: list[Callable[[], None]] = []
    for service in services:
        service.use(middleware=[LogContext()])
        if tracing.tracing_wanted(settings):
            traced = tracing.setup(service.name, subject=settings.subjects.event)
            service.use(middleware=[traced.consume], emit=[traced.emit])
            ends.append(traced.shutdown)
        service.observe(metrics)
        service.observe(LogObserver(service.name))
        health.add(partial(_problems, service, alone=len(services) == 1))
    return Instruments(metrics, health, tuple(ends))


def _declared(settings: "Settings") -> Registry:
    """Return the events that the schema packages declare, for the labels of those nobody names.

    Not the services' own registries: a listener of base `Event` gets what isn't in these as it is.
    """
    try:
        return EventService("labels", settings=settings).discover()
    except EventBusError as exc:
        _log.warning("metrics name only the events that listeners name: %s", exc)
        return Registry()


def _problems(service: EventService, *, alone: bool) -> tuple[str, ...]:
    problems = service.status().problems
    return problems if alone else tuple(f"{service.name}: {one}" for one in problems)
