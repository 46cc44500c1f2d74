"""How much longer things take on this machine now than on one that has nothing else to do."""

import os

from tests.faults.harness.profile import NAIVE

__all__ = ("pace",)

ON_A_NAIVE_BUS = 0.5
"""What has to fail needn't be waited for as long."""
IN_CI = 2.0
"""At least, where nobody knows what else the machine does."""


def pace() -> float:
    """Return the factor for deadlines, 1 on a machine that isn't busy."""
    if NAIVE:
        return ON_A_NAIVE_BUS
    busy = os.getloadavg()[0] / len(os.sched_getaffinity(0))
    return max(IN_CI if os.environ.get("CI") else 1.0, busy)
