"""`in_thread`: a blocking function as a listener, run in a thread beside the event loop."""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextvars import ContextVar, copy_context
from functools import partial, wraps
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

from eventbus.errors import DeclarationError

__all__ = ("in_loop", "in_thread")

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_THREADS = 32

_loop: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("eventbus_loop", default=None)


def in_thread(
    listener: Callable[P, None], /, *, threads: int = DEFAULT_THREADS
) -> Callable[P, Awaitable[None]]:
    """Return a listener that runs a blocking function in a thread.

    ::

        @events.subscribe(InvoiceDue)
        @in_thread
        def render(event: InvoiceDue, context: Context) -> None: ...

    The function has threads of its own, made when they are needed. It sees the context variables
    of its delivery; `in_loop` runs coroutines for it, such as an emit.

    A thread can't be cancelled. At the listener's time limit, and where a stop doesn't wait any
    longer, the attempt ends and the function goes on: the next attempt may run beside it, and
    what it does then, or raises, nobody looks at. Until it returns it takes one of ``threads``;
    once all are taken, runs wait, which counts to their time limit. So give every blocking call a
    time limit that is shorter than the listener's. The end of the process waits for no thread.

    Args:
        listener: The function; of the event, and of the context where it wants one.
        threads: How many may run at once, also those that nobody waits for any more. Not less
            than the listener's ``concurrency``.

    Raises:
        DeclarationError: The function is async, or ``threads`` isn't a number from 1.
    """
    name = getattr(listener, "__name__", type(listener).__name__)
    if inspect.iscoroutinefunction(listener):
        raise DeclarationError(f"in_thread({name}): it is async already; subscribe it as it is")
    if type(threads) is not int or threads < 1:
        raise DeclarationError(f"in_thread({name}, threads={threads!r}) must be at least 1")
    pool = _Pool(name, threads)

    @wraps(listener)
    async def run(*args: P.args, **kwargs: P.kwargs) -> None:
        context = copy_context()
        context.run(_loop.set, asyncio.get_running_loop())
        raised = await pool.run(lambda: context.run(listener, *args, **kwargs))
        if raised is not None:
            raise raised

    return run


def in_loop(coroutine: Coroutine[object, object, T]) -> T:
    """Run a coroutine on the event loop of the listener, and return what it returns.

    For functions that `in_thread` runs: ``receipt = in_loop(context.emit(event))``. What is
    emitted inherits correlation and cause, as in every listener.

    Raises:
        RuntimeError: It isn't called in such a function, or the loop has ended.
    """
    loop = _loop.get()
    try:
        if loop is None or _runs_here():
            raise RuntimeError("in_loop() is for functions in_thread() runs; elsewhere, await")
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()
    finally:
        coroutine.close()  # does nothing once it has run


def _runs_here() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _Pool:
    """Daemon threads, as many as there was work for at once, up to a limit.

    The executors of the standard library won't do: a process waits for their threads when it
    ends, and the loop's own resolves host names too, so that hung listeners would keep us from
    connecting again.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._made = 0
        self._making = threading.Lock()
        self._idle = threading.Semaphore(0)
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()

    async def run(self, function: Callable[[], None]) -> BaseException | None:
        """Return what a function raises in a thread; cancelled, it doesn't start any more."""
        future: Future[BaseException | None] = Future()
        self._submit(partial(_settle, future, function))
        return await asyncio.wrap_future(future)

    def _submit(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)
        with self._making:
            if self._idle.acquire(blocking=False) or self._made == self._most:
                return
            self._made += 1
            name = f"{self._name}-{self._made}"
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while True:
            self._jobs.get()()
            self._idle.release()


def _settle(future: "Future[BaseException | None]", function: Callable[[], None]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    raised: BaseException | None = None
    try:
        function()
    except BaseException as exc:  # noqa: BLE001 - raised again in the loop, where it belongs
        raised = exc
    future.set_result(raised)
