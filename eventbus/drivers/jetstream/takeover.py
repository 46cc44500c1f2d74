"""`Takeover`: tells when everything that is unsettled on the server is in our hands; pure.

The server tells how many deliveries are unsettled, not which. We hold some; so equal numbers mean
that we hold all, unless one of ours is settled already: by whoever had it before, in a settlement
that was still under way. Then ours counts for one that is out. Such a one shows in the numbers: of
what was unsettled at a first look, less is so at a later one, though we settled nothing.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto

__all__ = ("Look", "Next", "Takeover")


@dataclass(frozen=True, slots=True)
class Look:
    """What the server says of a durable, all of it at one moment."""

    unsettled: int
    handed_out: int
    """How many deliveries there were, each of them numbered."""
    newest: int
    """The highest sequence that was delivered."""
    floor: int
    """Up to this delivery, all are settled."""


class Next(Enum):
    """What to do after a look."""

    WAIT = auto()
    HAND_BACK = auto()
    """Something in hand may be settled: give all back; what is unsettled comes again."""
    GO_ON = auto()
    """Everything unsettled is in hand."""


class Takeover:
    """What is known while nothing new is begun, from `begin` until `Next.GO_ON`."""

    def __init__(self) -> None:
        self._since: int | None = None
        self._old = 0
        self._fresh: set[int] = set()
        self._is_doubtful = False
        self._first: int | None = None

    @property
    def has_looked(self) -> bool:
        """Whether what comes now came after a first look, and need not be given back."""
        return self._since is not None

    def begin(self, first: int | None = None) -> None:
        """Forget all looks.

        Args:
            first: The number of our first delivery of all, where we just became the one that
                gets them.
        """
        self._since = None
        self._first = first
        self._old = 0
        self._fresh.clear()
        self._is_doubtful = False

    def took(self, sequence: int, number: int, *, again: bool) -> None:
        """Take note of a delivery: of its event, its own number, and whether it is a repeated one.

        What nobody had before, nobody else can settle.
        """
        if self._since is not None and number <= self._since:
            self._is_doubtful = True  # the answer to a look was quicker
        elif not again:
            self._fresh.add(sequence)

    def settled(self) -> None:
        """Take note that we have settled one that we had before, and the server knows."""
        self._old -= 1

    def judge(self, look: Look, held: Collection[int]) -> Next:
        """Return what to do, while none of ours is just being settled.

        Args:
            look: What the server says.
            held: The sequences in hand whose lease stands.
        """
        if self._since is None and self._first is not None and look.floor >= self._first - 1:
            # Nothing is unsettled that wasn't delivered to us.
            self._since, self._old = self._first - 1, 0
        old = look.unsettled - sum(one <= look.newest for one in self._fresh)
        if self._since is None or old < self._old:
            self._since, self._old = look.handed_out, look.unsettled
            self._fresh = {one for one in self._fresh if one > look.newest}
            self._is_doubtful = True
        if self._is_doubtful:
            self._is_doubtful = False
            if held:
                return Next.HAND_BACK
        mine = sum(one <= look.newest for one in held)
        return Next.GO_ON if look.unsettled <= mine else Next.WAIT
