"""Dead letters as an operator works them: find, show, group, count, redrive and purge.

Functions over a connected driver (`eventbus.ops.connect.connected`). A letter is never changed;
it goes with `purge` and with nothing else.
"""

from eventbus.drivers.jetstream.letterbox import Place, Redrive
from eventbus.ops.deadletters.letters import Letter, Where, failed_again, find, show
from eventbus.ops.deadletters.parking import of_key
from eventbus.ops.deadletters.redriving import (
    Redriven,
    Result,
    edited,
    per_second,
    redrive,
)
from eventbus.ops.deadletters.removal import purge
from eventbus.ops.deadletters.summary import Count, Group, Stats, groups, stats

__all__ = (
    "Count",
    "Group",
    "Letter",
    "Place",
    "Redrive",
    "Redriven",
    "Result",
    "Stats",
    "Where",
    "edited",
    "failed_again",
    "find",
    "groups",
    "of_key",
    "per_second",
    "purge",
    "redrive",
    "show",
    "stats",
)
