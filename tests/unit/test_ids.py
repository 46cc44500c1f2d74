"""Event ids: fresh ones sort by time, derived ones repeat."""

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122, UUID

import pytest

from eventbus import ids
from eventbus.ids import MAX_ID, derived_id, is_id, uuid7


def test_a_fresh_id_is_a_uuid_of_version_7() -> None:
    value = UUID(uuid7())

    assert (value.version, value.variant) == (7, RFC_4122)


def test_a_fresh_id_holds_the_time_in_milliseconds() -> None:
    before = time.time_ns() // 1_000_000

    stamp = UUID(uuid7()).int >> 80

    # It runs ahead of the clock only after more than 2048 ids in one millisecond.
    assert before <= stamp <= time.time_ns() // 1_000_000 + 1000


def test_fresh_ids_of_one_process_increase() -> None:
    made = [uuid7() for _ in range(20_000)]

    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_fresh_ids_of_several_threads_differ() -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: uuid7(), range(4000)))

    assert len(set(made)) == len(made)


def test_fresh_ids_increase_though_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = uuid7()
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1_000_000)

    second = uuid7()

    assert second > first


def test_all_ids_of_a_millisecond_increase_and_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = (UUID(uuid7()).int >> 80) + 1
    monkeypatch.setattr(ids.time, "time_ns", lambda: now * 1_000_000)

    made = [uuid7() for _ in range(5000)]

    assert made == sorted(set(made))
    assert {UUID(one).int >> 80 for one in made} == {now}


def test_a_forked_process_counts_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    now = (UUID(uuid7()).int >> 80) + 1
    monkeypatch.setattr(ids.time, "time_ns", lambda: now * 1_000_000)
    parents = UUID(uuid7())

    ids._fresh.differ()  # as in the child
    childs = UUID(uuid7())

    assert (childs.version, childs.int >> 80) == (7, now)
    assert abs(childs.int - parents.int) > 1000


def test_a_derived_id_is_a_uuid_that_can_not_pass_for_a_fresh_one() -> None:
    value = UUID(derived_id("a", 1, b"body"))

    assert (value.version, value.variant) == (8, RFC_4122)


def test_equal_parts_derive_equal_ids_in_every_process() -> None:
    # Fixed: a redelivery in another process, or after an upgrade, must come to the same id.
    assert derived_id("id-1", "mail__send", 0, "email.sent", "", b"{}") == (
        "ec0a3d02-a6c7-8dbf-9230-ba18636c5197"
    )


@pytest.mark.parametrize(
    "others",
    [
        ("id-2", "mail__send", 0, "email.sent", "", b"{}"),
        ("id-1", "mail__copy", 0, "email.sent", "", b"{}"),
        ("id-1", "mail__send", 1, "email.sent", "", b"{}"),
        ("id-1", "mail__send", 0, "email.lost", "", b"{}"),
        ("id-1", "mail__send", 0, "email.sent", "k", b"{}"),
        ("id-1", "mail__send", 0, "email.sent", "", b"[]"),
        ("id-1", "mail__send0", "email.sent", "", b"{}"),
    ],
)
def test_another_part_derives_another_id(others: tuple[str | int | bytes, ...]) -> None:
    one = derived_id("id-1", "mail__send", 0, "email.sent", "", b"{}")

    assert derived_id(*others) != one


@pytest.mark.parametrize(
    "value",
    ["1", "x" * MAX_ID, "a/b:c=d", "~!", "01a1fc5f-2047-7116-9c9f-9fadd4853845", derived_id()],
)
def test_printable_ascii_is_an_id(value: str) -> None:
    assert is_id(value)


@pytest.mark.parametrize("value", ["", "x" * (MAX_ID + 1), "a b", "a\n", "\x7f", "ü", "\ud800"])
def test_what_could_not_be_told_apart_in_a_header_or_log_is_no_id(value: str) -> None:
    assert not is_id(value)
