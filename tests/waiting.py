"""Wait for what another process shows and nothing announces; where it doesn't come, say what."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

from tests.faults.harness.pace import patience

__all__ = ("Condition", "comes_true", "eventually")

Condition: TypeAlias = Callable[[], Awaitable[bool]]


async def eventually(
    condition: Condition,
    seconds: float = 20,
    *,
    state: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Wait until a condition holds; a busy machine gets longer, see `patience`.

    Raises:
        AssertionError: It doesn't come. The message says which condition it was, and what
            ``state`` returns then.
    """
    longest = seconds * patience()
    if await _within(longest, condition):
        return
    told = "" if state is None else f"\n{await state()}"
    raise AssertionError(f"not within {longest:.0f} s: {_named(condition)}{told}")


async def comes_true(condition: Condition, seconds: float = 20) -> bool:
    """Tell whether a condition comes to hold; for those alone who judge that later."""
    return await _within(seconds * patience(), condition)


async def _within(seconds: float, condition: Condition) -> bool:
    try:
        async with asyncio.timeout(seconds):
            while not await condition():  # noqa: ASYNC110 - another process's state
                await asyncio.sleep(0.02)
    except TimeoutError:
        return False
    return True


def _named(condition: Condition) -> str:
    inner = condition.func if isinstance(condition, partial) else condition
    code = getattr(inner, "__code__", None)
    place = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
    return f"{getattr(inner, '__name__', repr(inner))}{place}"
