"""The demo's account: what counts as lost, how latencies are estimated, how a story is told."""

import math
from datetime import UTC, datetime, timedelta

import pytest

from eventbus.cli.demo.account import Account, Consumer, DeadLetter, Holdings, Recorded, account_of
from eventbus.cli.demo.scrape import Buckets, Samples, parse
from eventbus.cli.demo.tree import story, telling
from eventbus.subject import matches

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def event(id: str, name: str = "user.created", cause: str | None = None, ms: int = 0) -> Recorded:
    source = "notification" if name == "email.sent" else "user"
    when = BEGAN + timedelta(milliseconds=ms)
    return Recorded(id, name, source, f"events.{name}", "c-1", cause, when)


def consumer(durable: str, pattern: str, unsettled: int = 0) -> Consumer:
    service, _, listener = durable.partition("__")
    takes = lambda subject: matches(f"events.{pattern}", subject)  # noqa: E731
    return Consumer(durable, service, listener, takes, unsettled)


AUDIT = consumer("audit__record", ">")
WELCOME = consumer("notification__welcome", "user.created")


def counted(*series: tuple[str, str, str, int]) -> Samples:
    return parse(
        "\n".join(
            f'eventbus_processed_total{{event="{name}",listener="{listener}",'
            f'outcome="{outcome}"}} {count}.0'
            for name, listener, outcome, count in series
        )
    )


def account(
    events: int, metrics: dict[str, Samples], dead: tuple[DeadLetter, ...] = (), **more: object
) -> Account:
    stored = tuple(event(f"e-{number}") for number in range(events))
    return account_of(Holdings(stored, dead, (AUDIT, WELCOME), **more), metrics)


def test_it_is_complete_when_every_durable_handled_every_event() -> None:
    metrics = {
        "audit": counted(("user.created", "record", "ok", 3)),
        "notification": counted(
            ("user.created", "welcome", "ok", 2),
            ("user.created", "welcome", "dropped", 1),
            ("user.created", "welcome", "retry", 5),
        ),
    }

    found = account(3, metrics)

    assert found.complete
    assert [(one.emitted, one.deliveries, one.handled, one.retried) for one in found.rows] == [
        (3, 6, 6, 5)
    ]


def test_an_event_that_one_listener_never_handled_is_lost_whatever_others_did() -> None:
    metrics = {
        "audit": counted(("user.created", "record", "ok", 4)),
        "notification": counted(("user.created", "welcome", "ok", 2)),
    }

    found = account(3, metrics)

    assert not found.complete
    assert found.problems() == [
        "1 user.created neither handled nor dead-lettered by notification__welcome"
    ]


def test_a_dead_letter_is_accounted_for_at_its_own_durable_only() -> None:
    metrics = {
        "audit": counted(("user.created", "record", "ok", 2)),
        "notification": counted(("user.created", "welcome", "ok", 2)),
    }
    dead = (DeadLetter("e-0", "user.created", "notification__welcome", "exception"),)

    found = account(3, metrics, dead)

    assert found.problems() == [
        "1 user.created neither handled nor dead-lettered by audit__record"
    ]


def test_a_dead_outcome_without_a_dead_letter_is_lost() -> None:
    metrics = {
        "audit": counted(("user.created", "record", "ok", 1)),
        "notification": counted(("user.created", "welcome", "dead", 1)),
    }

    assert not account(1, metrics).complete


def test_a_service_that_counts_nothing_has_handled_nothing() -> None:
    assert len(account(1, {}).missing) == 2


def test_what_a_service_emitted_and_the_stream_does_not_hold_is_lost() -> None:
    series = 'eventbus_emitted_total{driver="jetstream",event="user.created",outcome="ok"} 2.0'

    found = account_of(Holdings((event("e-1"),), (), ()), {"user": parse(series)})

    assert found.problems() == ["1 user.created emitted and not stored"]


def test_what_waits_in_an_outbox_counts_once_it_has_left_it() -> None:
    series = """
eventbus_emitted_total{driver="outbox",event="user.created",outcome="ok"} 5.0
eventbus_relayed_total{event="user.created"} 2.0"""

    found = account_of(Holdings((event("e-1"),), (), ()), {"user": parse(series)})

    assert found.problems() == ["1 user.created emitted and not stored"]


def test_the_next_tick_of_what_recurs_isnt_lost_as_long_as_it_waits() -> None:
    series = 'eventbus_emitted_total{driver="jetstream",event="user.created",outcome="ok"} 2.0'
    holdings = Holdings((event("e-1"),), (), (), ticks={"user.created": 1})

    assert account_of(holdings, {"user": parse(series)}).complete


def test_what_the_server_still_holds_is_not_accounted_for() -> None:
    found = account_of(Holdings((), (), (consumer("audit__record", ">", unsettled=2),)), {})

    assert found.problems() == ["2 deliveries are still not settled"]


def test_an_event_that_the_audit_trail_lacks_is_lost() -> None:
    holdings = Holdings((event("e-1"), event("e-2")), (), (), frozenset({"e-1"}))

    assert account_of(holdings, {}).problems() == ["1 events aren't in the audit trail"]


@pytest.mark.parametrize(
    ("share", "expected"), [(0.25, 0.005), (0.5, 0.01), (0.75, 0.055), (0.99, 0.0982)]
)
def test_a_quantile_is_interpolated_within_its_bucket(share: float, expected: float) -> None:
    buckets = Buckets({0.01: 50, 0.1: 100, math.inf: 100})

    found = buckets.quantile(share)

    assert found == pytest.approx(expected)


def test_a_quantile_beyond_the_last_bound_is_that_bound() -> None:
    assert Buckets({1.0: 1, math.inf: 2}).quantile(0.99) == 1.0
    assert Buckets().quantile(0.5) is None


def test_histograms_of_several_listeners_add_up() -> None:
    both = Buckets({0.1: 1, math.inf: 2}) + Buckets({0.1: 0, math.inf: 3})

    assert both.counts == {0.1: 1, math.inf: 5}
    assert both.total == 5


def test_a_story_hangs_each_event_under_the_listener_that_emitted_it() -> None:
    events = (event("e-1"), event("e-2", "email.sent", cause="e-1", ms=512))
    dead = (DeadLetter("e-2", "email.sent", "audit__record", "timeout"),)

    told = story("c-1", Holdings(events, dead, (AUDIT, WELCOME)))

    assert told == [
        "correlation c-1",
        "user.created  emitted by user, +0 ms",
        "├─ audit.record  handled",
        "└─ notification.welcome  handled",
        "   └─ email.sent  emitted by notification, +512 ms",
        "      └─ audit.record  dead letter: timeout",
    ]


def test_the_story_to_tell_crosses_the_most_services() -> None:
    one = event("e-1", "user.deleted")
    other = Recorded("e-2", "user.created", "user", "events.user.created", "c-2", None, BEGAN)

    assert telling([one, other], (AUDIT, WELCOME)) == "c-2"
    assert telling([], ()) is None
