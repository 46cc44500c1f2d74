"""Taking over an ordered durable: when is everything that is unsettled in our hands?"""

import pytest

from eventbus.drivers.jetstream.takeover import Look, Next, Takeover


def look(unsettled: int, *, handed_out: int, newest: int = 0, floor: int = 0) -> Look:
    return Look(unsettled, handed_out, newest or handed_out, floor)


@pytest.fixture
def takeover() -> Takeover:
    """Give one that has looked: two events were with another process, deliveries 1 and 2."""
    takeover = Takeover()
    takeover.begin()
    assert takeover.judge(look(2, handed_out=2), []) is Next.WAIT
    return takeover


def test_where_nothing_was_unsettled_before_our_first_delivery_nothing_is_waited_for() -> None:
    takeover = Takeover()
    takeover.begin(first=8)
    takeover.took(12, 8, again=False)

    assert takeover.judge(look(1, handed_out=8, newest=12, floor=7), [12]) is Next.GO_ON


def test_an_idle_durable_is_open_at_once() -> None:
    takeover = Takeover()
    takeover.begin()

    assert takeover.judge(look(0, handed_out=7, floor=7), []) is Next.GO_ON


def test_what_came_before_the_first_look_is_given_back() -> None:
    takeover = Takeover()
    takeover.begin(first=3)
    takeover.took(3, 3, again=False)

    assert takeover.judge(look(3, handed_out=3), [3]) is Next.HAND_BACK
    assert takeover.has_looked


def test_it_waits_until_all_that_another_process_had_has_come(takeover: Takeover) -> None:
    takeover.took(3, 3, again=False)
    first = takeover.judge(look(3, handed_out=3), [3])
    takeover.took(1, 4, again=True)
    second = takeover.judge(look(3, handed_out=4, newest=3), [1, 3])
    takeover.took(2, 5, again=True)
    third = takeover.judge(look(3, handed_out=5, newest=3), [1, 2, 3])

    assert (first, second, third) == (Next.WAIT, Next.WAIT, Next.GO_ON)


def test_what_another_process_settles_meanwhile_may_be_in_our_hands(takeover: Takeover) -> None:
    takeover.took(3, 3, again=False)
    takeover.took(1, 4, again=True)

    # Delivery 1 is acknowledged late: of our two, one counts no more, and 2 is still out.
    assert takeover.judge(look(2, handed_out=4, newest=3), [1, 3]) is Next.HAND_BACK

    takeover.took(3, 5, again=True)
    assert takeover.judge(look(2, handed_out=5, newest=3), [3]) is Next.WAIT
    takeover.took(2, 6, again=True)
    assert takeover.judge(look(2, handed_out=6, newest=3), [2, 3]) is Next.GO_ON


def test_what_we_settle_ourselves_casts_no_doubt_on_the_rest(takeover: Takeover) -> None:
    takeover.took(1, 3, again=True)
    takeover.took(2, 4, again=True)
    takeover.settled()

    assert takeover.judge(look(1, handed_out=4, newest=2), [2]) is Next.GO_ON


def test_a_new_event_that_is_under_way_hides_no_settlement(takeover: Takeover) -> None:
    takeover.took(1, 3, again=True)

    # 3 was delivered and hasn't come; 1 was settled by another process, 2 is still out.
    assert takeover.judge(look(2, handed_out=4, newest=3), [1]) is Next.WAIT


def test_a_delivery_from_before_the_look_that_comes_after_it_is_given_back(
    takeover: Takeover,
) -> None:
    takeover.took(2, 2, again=True)

    assert takeover.judge(look(2, handed_out=2), [2]) is Next.HAND_BACK


def test_what_came_after_the_look_is_not_counted(takeover: Takeover) -> None:
    takeover.took(1, 3, again=True)
    takeover.took(3, 4, again=False)

    assert takeover.judge(look(2, handed_out=3, newest=2), [1, 3]) is Next.WAIT


def test_another_turn_forgets_all_looks(takeover: Takeover) -> None:
    takeover.begin()

    assert not takeover.has_looked
