"""The seam for questions: one message there, one back, nothing stored; and it within a process."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from eventbus.envelope import Message
from eventbus.errors import NobodyAnswersError, RequestTimeoutError

__all__ = ("Answer", "Asking", "LocalAsking", "Stop")

Answer: TypeAlias = Callable[[Message], Awaitable[Message]]
"""Returns the reply to a question; raises nothing but for cancellation."""
Stop: TypeAlias = Callable[[], Awaitable[None]]
"""Ends an answering: takes no more questions, and lets what runs finish."""


class Asking(Protocol):
    """Carries questions to whoever answers them, and the replies back."""

    async def ask(self, message: Message, *, within: float) -> Message:
        """Return the reply to a question, its headers by lower-case name.

        Raises:
            NobodyAnswersError: At once; nobody answers on that subject.
            RequestTimeoutError: No reply ``within`` so many seconds.
            NotConnectedError: There is no connection, or it broke meanwhile.
            PayloadTooLargeError, HeaderError, SubjectError: It can't be carried.
        """
        ...

    async def answer(self, subject: str, group: str, answer: Answer) -> Stop:
        """Answer what is asked on a subject from now on, one of a group each time."""
        ...


class LocalAsking:
    """Questions within a process."""

    def __init__(self) -> None:
        self._answers: dict[str, dict[str, deque[Answer]]] = {}

    async def ask(self, message: Message, *, within: float) -> Message:
        """Return the reply to a question; of several groups, the first's."""
        groups = self._answers.get(message.subject)
        if not groups:
            raise NobodyAnswersError(subject=message.subject)
        members = next(iter(groups.values()))
        members.rotate(-1)
        try:
            async with asyncio.timeout(within):
                return await members[-1](message)
        except TimeoutError as exc:
            raise RequestTimeoutError(subject=message.subject, after=within) from exc

    async def answer(self, subject: str, group: str, answer: Answer) -> Stop:
        """Answer what is asked on a subject from now on."""
        groups = self._answers.setdefault(subject, {})
        groups.setdefault(group, deque()).append(answer)

        async def stop() -> None:
            members = groups[group]
            members.remove(answer)
            if not members:
                del groups[group]

        return stop
