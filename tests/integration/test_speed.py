"""Nothing makes the bus much slower by mistake: its cost in relation to hand-written nats-py.

Never absolute times: both run here, now, on this machine, in turns, and what counts is processor
time. The bounds are far from what `bench` measures, so that only a mistake reaches them.
"""

import pytest

from bench.pair import Run, measure

ROUNDS = 6
"""At most: other programs make a round dearer by chance, and a mistake makes all of them so."""


def cost(case: str, events: int, bound: float) -> float:
    """Return our processor time for an event, in relation to nats-py's; the best of some runs."""
    ours, plain = [], []
    for _ in range(ROUNDS):
        plain.append(measure(Run("plain", case, events))["cpu_us"])
        ours.append(measure(Run("ours", case, events))["cpu_us"])
        if min(ours) / min(plain) < bound:
            break
    return min(ours) / min(plain)


@pytest.mark.nats
@pytest.mark.slow
@pytest.mark.usefixtures("_nats_binary")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("case", "events", "bound"),
    [("emit_256", 4000, 1.5), ("consume", 4000, 4.0)],
)
def test_an_event_costs_no_more_than_it_should(case: str, events: int, bound: float) -> None:
    assert cost(case, events, bound) < bound
