"""What an emit inherits from where it happens."""

import asyncio

import pytest

from eventbus.correlation import Handled, Scope, current_scope, entered
from eventbus.ids import is_id


def test_outside_of_listeners_and_requests_there_is_nothing_to_inherit() -> None:
    assert current_scope() == Scope()


def test_a_scope_holds_for_its_block_and_nests() -> None:
    outer, inner = Scope("outer"), Scope("inner")

    with entered(outer) as given:
        with entered(inner):
            seen = current_scope()
        after_inner = current_scope()

    assert given is outer
    assert seen is inner
    assert after_inner is outer
    assert current_scope() == Scope()


def test_a_scope_ends_with_its_block_also_when_it_raises() -> None:
    with pytest.raises(ValueError, match="x"), entered(Scope("c")):
        raise ValueError("x")

    assert current_scope() == Scope()


async def test_tasks_started_in_a_block_are_in_its_scope_and_others_are_not() -> None:
    seen: dict[str, str | None] = {}

    async def look(name: str) -> None:
        seen[name] = current_scope().correlation_id

    async with asyncio.TaskGroup() as group:
        with entered(Scope("c-1")):
            group.create_task(look("inside"))
        group.create_task(look("outside"))

    assert seen == {"inside": "c-1", "outside": None}


def test_outside_of_a_listener_every_id_is_fresh() -> None:
    scope = Scope()

    ids = {scope.id_for("user.created", "u-1", b"{}") for _ in range(10)}

    assert len(ids) == 10


def test_a_listener_that_runs_again_and_emits_the_same_gets_the_same_ids() -> None:
    emits = [
        ("email.sent", None, b'{"to":"a"}'),
        ("email.sent", None, b'{"to":"b"}'),
        ("email.sent", None, b'{"to":"a"}'),
        ("audit.noted", "k", b"{}"),
    ]

    def run() -> list[str]:
        scope = Scope(handled=Handled("id-1", "mail__send"))
        return [scope.id_for(*emit) for emit in emits]

    first, second = run(), run()

    assert first == second
    assert len(set(first)) == len(emits)
    assert all(is_id(one) for one in first)


def test_the_order_of_different_emits_does_not_change_their_ids() -> None:
    one, other = Handled("id-1", "mail__send"), Handled("id-1", "mail__send")

    ids = {body: one.next_id("email.sent", None, body) for body in (b"1", b"2")}
    reversed_ids = {body: other.next_id("email.sent", None, body) for body in (b"2", b"1")}

    assert ids == reversed_ids


@pytest.mark.parametrize(
    "other",
    [
        Handled("id-2", "mail__send"),
        Handled("id-1", "mail__copy"),
        Handled("id-1", "mail__send", 1),
    ],
    ids=["another event", "another listener", "a redrive"],
)
def test_another_event_listener_or_redrive_gives_other_ids(other: Handled) -> None:
    one = Handled("id-1", "mail__send")

    assert one.next_id("email.sent", None, b"{}") != other.next_id("email.sent", None, b"{}")
