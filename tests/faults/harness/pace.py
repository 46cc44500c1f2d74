"""How much longer things take on this machine now than on one that has nothing else to do."""

import os

from tests.faults.harness.profile import NAIVE

__all__ = ("pace",)

IN_CI = 2.0
"""At least, where nobody knows what else the machine does."""


def pace() -> float:
    """Return the factor, 1 for a machine that isn't busy; deadlines are multiplied by it."""
    if NAIVE:
        return 1.0  # what has to fail needn't be waited for
    busy = os.getloadavg()[0] / len(os.sched_getaffinity(0))
    return max(IN_CI if os.environ.get("CI") else 1.0, busy)
