"""The checker itself: each invariant is seen to be broken by a history that breaks it."""

import pytest

from tests.faults.harness.checker import Evidence, Letter, Measure, Stored, violations
from tests.faults.harness.history import Entry, History, What


def history(*entries: tuple[What, str] | Entry) -> History:
    told = History()
    for number, one in enumerate(entries):
        entry = one if isinstance(one, Entry) else Entry(one[0], one[1], "send", at=number)
        told.write(entry)
    return told


def emitted(*marks: str) -> list[tuple[What, str]]:
    return [(what, mark) for mark in marks for what in (What.INVOKED, What.STORED)]


def stored(*marks: str, thread: str = "a") -> list[Stored]:
    return [
        Stored(number, "events.step.taken", f"id-{number}", mark, thread)
        for number, mark in enumerate(marks, start=1)
    ]


def letter(mark: str, *, reason: str = "exception", sequence: int = 1) -> Letter:
    return Letter("send", mark, reason, "ValueError: no", 3, sequence)


def broken(evidence: Evidence) -> list[str]:
    return [one.invariant for one in violations(evidence)]


def test_a_history_without_a_fault_breaks_nothing() -> None:
    told = history(*emitted("a:1", "a:2"), (What.EFFECT, "a:1"))

    evidence = Evidence(told, stored("a:1", "a:2"), [letter("a:2", sequence=2)], ["send"])

    assert violations(evidence) == []


def test_an_emit_that_returned_and_isnt_stored_is_a_loss() -> None:
    told = history(*emitted("a:1"))

    assert broken(Evidence(told, [], [], [])) == ["I1"]
    assert broken(Evidence(told, [], [], [], removed=["a:1"])) == []


def test_an_event_that_a_listener_never_had_is_a_loss_unless_it_is_on_its_way() -> None:
    told = history(*emitted("a:1"))

    assert broken(Evidence(told, stored("a:1"), [], ["send"])) == ["I1"]
    assert broken(Evidence(told, stored("a:1"), [], ["send"], backlog={"send": 1})) == []


def test_fewer_events_on_their_way_than_are_missing_are_a_loss() -> None:
    told = history(*emitted("a:1", "a:2"))

    evidence = Evidence(told, stored("a:1", "a:2"), [], ["send"], backlog={"send": 1})

    assert broken(evidence) == ["I1"]


def test_an_effect_that_happens_twice_matters_where_exactly_once_is_promised() -> None:
    told = history(*emitted("a:1"), (What.EFFECT, "a:1"), (What.EFFECT, "a:1"))

    assert broken(Evidence(told, stored("a:1"), [], ["send"])) == []
    assert broken(Evidence(told, stored("a:1"), [], ["send"], exactly_once=["send"])) == ["I2"]


def test_an_event_that_is_stored_twice_is_found() -> None:
    told = history(*emitted("a:1"), (What.EFFECT, "a:1"))

    assert broken(Evidence(told, stored("a:1", "a:1"), [], ["send"])) == ["I3"]


@pytest.mark.parametrize(("order", "expected"), [(("a:1", "a:2"), []), (("a:2", "a:1"), ["I4"])])
def test_order_is_judged_where_it_is_promised(order: tuple[str, str], expected: list[str]) -> None:
    effects = [(What.EFFECT, mark) for mark in order]
    told = history(*emitted("a:1", "a:2"), *effects)

    evidence = Evidence(told, stored("a:1", "a:2"), [], ["send"], ordered=["send"])

    assert broken(evidence) == expected


def test_an_effect_that_is_repeated_later_isnt_out_of_order() -> None:
    effects = [(What.EFFECT, mark) for mark in ("a:1", "a:2", "a:1")]
    told = history(*emitted("a:1", "a:2"), *effects)

    evidence = Evidence(told, stored("a:1", "a:2"), [], ["send"], ordered=["send"])

    assert broken(evidence) == []


def test_an_event_that_nobody_emitted_is_found() -> None:
    assert broken(Evidence(history(), stored("a:1"), [], [])) == ["I5"]


def test_a_refused_emit_must_not_be_stored_and_an_unknown_one_may() -> None:
    refused = history((What.INVOKED, "a:1"), (What.REFUSED, "a:1"))
    unknown = history((What.INVOKED, "a:1"), (What.UNKNOWN, "a:1"))

    assert broken(Evidence(refused, stored("a:1"), [], [])) == ["I5"]
    assert broken(Evidence(unknown, stored("a:1"), [], [])) == []
    assert broken(Evidence(unknown, [], [], [])) == []


def test_a_value_over_its_limit_is_found() -> None:
    measures = [Measure("seconds to stop", 4.0, 5), Measure("tasks", 9.0, 8)]

    (found,) = violations(Evidence(history(), [], [], [], measures=measures))

    assert (found.invariant, found.problem) == ("I6", "tasks: 9.00, at most 8 is allowed")


def test_a_death_without_a_letter_and_a_letter_without_a_reason_are_found() -> None:
    dead = Entry(What.SETTLED, listener="send", detail="dead", sequence=7)

    assert broken(Evidence(history(dead), [], [], [])) == ["I7"]
    assert broken(Evidence(history(), [], [letter("a:1", reason="")], [])) == ["I7"]
    assert broken(Evidence(history(), [], [letter("a:1"), letter("a:1")], [])) == ["I7"]


def test_a_service_that_doesnt_serve_at_the_end_is_found() -> None:
    assert broken(Evidence(history(), [], [], [], serving={"mailer": False})) == ["I8"]


def test_listeners_at_once_are_counted_from_begin_to_end() -> None:
    told = history(
        (What.BEGUN, "a:1"), (What.BEGUN, "a:2"), (What.EFFECT, "a:1"), (What.BEGUN, "a:3")
    )

    assert told.most_at_once("send") == 2


def test_many_marks_are_named_by_the_first_few() -> None:
    told = history(*emitted(*(f"a:{n}" for n in range(9))))

    (found,) = violations(Evidence(told, [], [], []))

    assert found.problem.endswith("a:0, a:1, a:2, a:3, a:4 and 4 more")
