"""How much longer things take on this machine now than on one that has nothing else to do."""

import os

from tests.faults.harness.profile import NAIVE

__all__ = ("pace", "patience")

ON_A_NAIVE_BUS = 0.5
"""What has to fail needn't be waited for as long."""
IN_CI = 3.0
"""At least, where nobody knows what else the machine does."""
PATIENT = 4.0
"""At least, where what comes ends the wait: on a machine that is fine it costs nothing."""


def pace() -> float:
    """Return the factor for what is measured, 1 on a machine that isn't busy."""
    if NAIVE:
        return ON_A_NAIVE_BUS
    busy = os.getloadavg()[0] / len(os.sched_getaffinity(0))
    return max(IN_CI if os.environ.get("CI") else 1.0, busy)


def patience() -> float:
    """Return the factor for waits: a load that begins just now isn't in any average."""
    return ON_A_NAIVE_BUS if NAIVE else max(PATIENT, pace())
