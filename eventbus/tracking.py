"""`Track`: waits for all that a block's emits cause, and tells it as a tree."""

import asyncio
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from eventbus.delivery import Outcome
from eventbus.duration import Duration, seconds
from eventbus.subscription import Subscription
from eventbus.telemetry.signals import Emitted, Happened, Observer, Settled

__all__ = ("Track", "Tracked")

FINAL = frozenset((Outcome.OK, Outcome.DEAD, Outcome.DROPPED, Outcome.DUPLICATE))


class Tracked(Protocol):
    """What can be tracked: an `eventbus.EventService`."""

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """Its listeners."""
        ...

    def observe(self, observer: Observer) -> None:
        """Tell ``observer`` what happens."""
        ...

    def unobserve(self, observer: Observer) -> None:
        """Stop telling it."""
        ...


@dataclass(frozen=True, slots=True)
class _Node:
    name: str
    children: tuple["_Node", ...] = ()

    def lines(self, indent: str = "") -> Iterator[str]:
        yield indent + self.name
        for child in self.children:
            yield from child.lines(indent + "  ")

    def sorted(self) -> "_Node":
        return _Node(self.name, _in_order(self.children))


class Track:
    """Follows what is emitted in its block, through the listeners of the given services.

    ::

        async with events.track(notification) as track:
            await events.emit(UserCreated(user_id="u-1", email="ada@example.org"))
        track.assert_tree("user.created > email.sent")

    The end of the block waits until each listener of these services that takes one of the events
    is done with it: handled, dropped, or a dead letter; then for what those listeners emitted. It
    sees what happens in this process, with any driver. Where the block raises it waits for
    nothing.

    Args:
        services: Whose emits and listeners count; they must be running.
        timeout: How long the end of the block waits, in real time.

    Raises:
        AssertionError: At the end of the block; it says which listeners aren't done with what.
    """

    def __init__(self, services: Sequence[Tracked], *, timeout: Duration = 10.0) -> None:
        self._services = tuple(services)
        self._timeout = seconds(timeout)
        self._emitted: dict[str, Emitted] = {}
        self._settled: list[Settled] = []
        self._done: set[tuple[str, str]] = set()
        self._more = asyncio.Event()

    @property
    def emitted(self) -> tuple[Emitted, ...]:
        """What was emitted, in its order."""
        return tuple(self._emitted.values())

    @property
    def settled(self) -> tuple[Settled, ...]:
        """How each delivery ended, retries included, in their order."""
        return tuple(self._settled)

    async def __aenter__(self) -> Self:
        """Begin to follow."""
        for service in self._services:
            service.observe(self._note)
        return self

    async def __aexit__(self, raised: object, *exc: object) -> None:
        """Wait for what the block caused, unless it raised."""
        try:
            if raised is None:
                await self._until_done()
        finally:
            for service in self._services:
                service.unobserve(self._note)

    def tree(self) -> str:
        """Return what was emitted, each event below the one that caused it."""
        return _drawn(self._roots())

    def assert_tree(self, expected: str) -> None:
        """Fail unless exactly this was emitted, in any order among siblings.

        Args:
            expected: Event names: ``a > b`` for b caused by a, ``a > (b, c)`` for two of them,
                ``a, b`` for two that nothing caused.

        Raises:
            ValueError: It can't be read.
            AssertionError: It shows both trees.
        """
        __tracebackhide__ = True
        wanted, found = _in_order(_parsed(expected)), _in_order(self._roots())
        if wanted != found:
            raise AssertionError(f"expected\n{_drawn(wanted)}\nbut emitted was\n{_drawn(found)}")

    def _note(self, happened: Happened) -> None:
        match happened:
            case Emitted():
                self._emitted.setdefault(happened.id, happened)
            case Settled():
                self._settled.append(happened)
                if happened.outcome in FINAL:
                    self._done.add((happened.id, f"{happened.service}__{happened.listener}"))
            case _:
                return
        self._more.set()

    async def _until_done(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                while any(self._open()):
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            missing = "\n".join(f"  {name} by {durable}" for name, durable in self._open())
            raise AssertionError(
                f"not done after {self._timeout:g} s:\n{missing}\nemitted was\n{self.tree()}"
            ) from None

    def _open(self) -> Iterator[tuple[str, str]]:
        """Iterate over the events and listeners that aren't done with them."""
        for one in self._emitted.values():
            for service in self._services:
                for each in service.subscriptions:
                    if (one.id, each.durable) not in self._done and _takes(each, one.name):
                        yield one.name, each.durable

    def _roots(self) -> tuple[_Node, ...]:
        known = self._emitted
        return self._nodes(one for one in known.values() if one.causation_id not in known)

    def _nodes(self, events: Iterable[Emitted]) -> tuple[_Node, ...]:
        return tuple(_Node(one.name, self._nodes(self._caused_by(one.id))) for one in events)

    def _caused_by(self, id: str) -> Iterator[Emitted]:
        return (one for one in self._emitted.values() if one.causation_id == id)


def _takes(one: Subscription, name: str) -> bool:
    return one.takes_name(name)


def _in_order(nodes: Iterable[_Node]) -> tuple[_Node, ...]:
    return tuple(sorted((one.sorted() for one in nodes), key=lambda one: tuple(one.lines())))


def _drawn(nodes: Iterable[_Node]) -> str:
    return "\n".join(line for one in nodes for line in one.lines("  ")) or "  nothing"


def _parsed(text: str) -> tuple[_Node, ...]:
    tokens = re.findall(r"[^\s>(),]+|[>(),]", text)[::-1]
    nodes = _siblings(tokens) if tokens else ()
    if tokens:
        raise ValueError(f"can't read the tree {text!r} from {' '.join(reversed(tokens))!r} on")
    return nodes


def _siblings(tokens: list[str]) -> tuple[_Node, ...]:
    nodes = [_node(tokens)]
    while _skipped(",", tokens):
        nodes.append(_node(tokens))
    return tuple(nodes)


def _node(tokens: list[str]) -> _Node:
    name = tokens.pop() if tokens else "the end"
    if name in (">", "(", ")", ",", "the end"):
        raise ValueError(f"can't read the tree: {name!r} stands where an event's name should")
    if not _skipped(">", tokens):
        return _Node(name)
    if not _skipped("(", tokens):
        return _Node(name, (_node(tokens),))
    children = _siblings(tokens)
    if not _skipped(")", tokens):
        raise ValueError(f"can't read the tree: a ')' is missing after {name!r}")
    return _Node(name, children)


def _skipped(token: str, tokens: list[str]) -> bool:
    """Take the next token off where it is this one, and tell so."""
    if tokens[-1:] != [token]:
        return False
    tokens.pop()
    return True
