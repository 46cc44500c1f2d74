"""`History`: what was emitted, run, done and settled, as entries that survive a killed process."""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from tests.faults.harness.pace import patience

__all__ = ("Entry", "FileLedger", "History", "Ledger", "What")

LOOK_EVERY = 0.02


class What(StrEnum):
    """What an entry tells."""

    INVOKED = "invoked"
    STORED = "stored"
    """An emit returned."""
    UNKNOWN = "unknown"
    """An emit doesn't know whether the event is stored."""
    REFUSED = "refused"
    """An emit says that the event isn't stored."""
    BEGUN = "begun"
    EFFECT = "effect"
    """A listener's run ended well: what it does for the world is done."""
    BROKEN = "broken"
    """A listener's run ended in any other way that its process could still write down."""
    SETTLED = "settled"
    STUCK = "stuck"
    RETURNED = "returned"
    LOST = "lost"
    CONNECTED = "connected"
    STARTED = "started"
    """A process works."""
    STOPPED = "stopped"
    VITALS = "vitals"
    """What a process uses: tasks, file descriptors and memory."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened."""

    what: What
    mark: str = ""
    listener: str = ""
    attempt: int = 0
    detail: str = ""
    sequence: int = 0
    at: float = field(default_factory=time.monotonic)
    """On the clock that all processes of the machine share."""
    process: int = field(default_factory=os.getpid)


class Ledger(Protocol):
    """Where entries are written."""

    def write(self, entry: Entry) -> None:
        """Keep an entry."""
        ...


class FileLedger:
    """Entries in a file, one a line: what is written outlives a kill -9 of the writer.

    Nothing is synced; a power cut isn't among the faults.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, entry: Entry) -> None:
        """Append an entry, in one piece."""
        os.write(self._file, json.dumps(asdict(entry)).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class _Tail:
    """Reads the lines that others append to a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> Iterator[Entry]:
        """Yield the entries that are new."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # the rest of it is being written
                self._offset += len(line)
                record = json.loads(line)
                yield Entry(**{**record, "what": What(record["what"])})


class History:
    """All entries of one case: those of this process, and those in the ledgers of others."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._tails: list[_Tail] = []

    def write(self, entry: Entry) -> None:
        """Keep an entry of this process."""
        self.entries.append(entry)

    def follow(self, path: Path) -> None:
        """Read along what another process writes."""
        self._tails.append(_Tail(path))

    def refresh(self) -> None:
        """Take in what other processes have written."""
        for tail in self._tails:
            self.entries.extend(tail.read())

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
        """Wait until the entries are such; raises an AssertionError that says ``what`` if not.

        A busy machine gets longer, see `patience`.
        """
        seconds *= patience()
        try:
            async with asyncio.timeout(seconds):
                self.refresh()
                while not condition():
                    await asyncio.sleep(LOOK_EVERY)
                    self.refresh()
        except TimeoutError:
            raise AssertionError(f"not within {seconds:g} s: {what}") from None

    def of(self, *what: What, mark: str | None = None, listener: str | None = None) -> list[Entry]:
        """Return the entries of some kinds, in the order they were written."""
        return [
            one
            for one in self.entries
            if one.what in what
            and (mark is None or one.mark == mark)
            and (listener is None or one.listener == listener)
        ]

    def marks(self, *what: What, listener: str | None = None) -> set[str]:
        """Return the marks that entries of some kinds have."""
        return {one.mark for one in self.of(*what, listener=listener)}

    def counts(self, what: What, listener: str | None = None) -> Counter[str]:
        """Return how many entries of a kind each mark has."""
        return Counter(one.mark for one in self.of(what, listener=listener))

    def most_at_once(self, listener: str) -> int:
        """Return how many runs of a listener went on at the same time, at most."""
        running = most = 0
        runs = self.of(What.BEGUN, What.EFFECT, What.BROKEN, listener=listener)
        for one in sorted(runs, key=lambda entry: entry.at):
            running += 1 if one.what is What.BEGUN else -1
            most = max(most, running)
        return most

    def longest_gap(self) -> float:
        """Return the longest time between two emits that returned, in seconds."""
        return longest_gap(one.at for one in self.of(What.STORED))


def longest_gap(times: Iterable[float]) -> float:
    """Return the longest time between two neighbours, 0 for fewer than two."""
    ordered = sorted(times)
    return max((b - a for a, b in pairwise(ordered)), default=0.0)
