"""Names, patterns, and the subjects of a namespace."""

import pytest

from eventbus.errors import SubjectError
from eventbus.subject import (
    MAX_EVENT_NAME,
    Subjects,
    check_event_name,
    check_name,
    check_pattern,
    check_service_name,
    covers,
    encode_key,
    is_pattern,
    matches,
    without_covered,
)


@pytest.mark.parametrize(
    "name", ["user.created", "vendor.status.changed", "a.b.c.d", "order_2.line_added", "u1.x"]
)
def test_two_to_four_lower_case_tokens_are_an_event_name(name: str) -> None:
    assert check_event_name(name) == name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "it is empty"),
        ("user", "it has 1 token;"),
        ("a.b.c.d.e", "it has 5 tokens"),
        ("user..created", "empty token"),
        (".created", "empty token"),
        ("user.", "empty token"),
        ("user.*", "wildcards are for subscribe()"),
        ("user.>", "wildcards are for subscribe()"),
        ("user created", "white space"),
        ("user.created\n", "white space"),
        ("user.\tcreated", "white space"),
        ("UserCreated", "write 'user.created'"),
        ("user.Created", "write 'user.created'"),
        ("user.1st", "token '1st'"),
        ("user._made", "token '_made'"),
        ("user.made-up", "token 'made-up'"),
        ("user.größe", "token 'größe'"),
        ("user.\x00", "token '\\x00'"),
        ("a." + "b" * MAX_EVENT_NAME, "130 characters"),
    ],
)
def test_what_is_no_event_name_is_refused_with_what_is_wrong(name: str, problem: str) -> None:
    with pytest.raises(SubjectError) as raised:
        check_event_name(name)

    assert problem in str(raised.value)
    assert raised.value.value == name


def test_the_longest_event_name_is_accepted() -> None:
    name = "a." + "b" * (MAX_EVENT_NAME - 2)

    assert check_event_name(name) == name


@pytest.mark.parametrize(
    "pattern", ["user.created", "user.*", "*.created", "user.>", ">", "*.*", "*.>", "a.b.c.>"]
)
def test_a_name_with_or_without_wildcards_is_a_pattern(pattern: str) -> None:
    assert check_pattern(pattern) == pattern


@pytest.mark.parametrize(
    "pattern",
    ["*", "user", "user.>.created", ">.>", "user.**", "user.c*", "a.b.c.d.>", "User.*", "user .*"],
)
def test_what_takes_no_event_is_no_pattern(pattern: str) -> None:
    with pytest.raises(SubjectError):
        check_pattern(pattern)


def test_a_lone_star_is_refused_with_what_takes_all() -> None:
    with pytest.raises(SubjectError, match="'>' alone takes every event"):
        check_pattern("*")


def test_a_wildcard_makes_a_pattern() -> None:
    assert [is_pattern(text) for text in ("user.*", "user.>", "user.created")] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("name", ["user", "user-mail", "_hidden", "A1", "x" * 64])
def test_a_listener_name_is_what_a_subject_token_and_a_durable_can_hold(name: str) -> None:
    assert check_name(name, "listener") == name


@pytest.mark.parametrize("name", ["", "a.b", "a b", "a*", "a>", "<lambda>", "ü", "x" * 65, "a\n"])
def test_another_name_is_refused_by_what_it_was_meant_for(name: str) -> None:
    with pytest.raises(SubjectError, match="isn't a listener name"):
        check_name(name, "listener")


@pytest.mark.parametrize("name", ["user", "user_mail", "_a", "a-b"])
def test_a_service_name_may_hold_single_underscores(name: str) -> None:
    assert check_service_name(name) == name


@pytest.mark.parametrize("name", ["a__b", "a_", "__", "a.b", ""])
def test_a_service_name_can_not_blur_where_it_ends_in_a_durable(name: str) -> None:
    # "a" + "__" + "b__c" and "a__b" + "__" + "c" would be one durable of two services.
    with pytest.raises(SubjectError, match="isn't a service name"):
        check_service_name(name)


@pytest.mark.parametrize(
    ("pattern", "name", "taken"),
    [
        ("user.created", "user.created", True),
        ("user.created", "user.updated", False),
        ("user.*", "user.created", True),
        ("user.*", "user.status.changed", False),
        ("user.>", "user.status.changed", True),
        ("user.>", "user", False),
        (">", "user", True),
        ("*.created", "user.created", True),
        ("*.*", "user", False),
    ],
)
def test_a_pattern_takes_names_by_the_rules_of_nats(pattern: str, name: str, taken: bool) -> None:
    assert matches(pattern, name) is taken


@pytest.mark.parametrize(
    ("wide", "narrow", "covered"),
    [
        ("user.>", "user.*", True),
        ("user.*", "user.>", False),
        (">", "*.>", True),
        ("*.>", ">", False),
        ("*.*", "user.*", True),
        ("user.*", "*.*", False),
        ("user.*", "*.created", False),
        ("user.>", "user.>", True),
    ],
)
def test_a_pattern_covers_another_that_takes_nothing_more(
    wide: str, narrow: str, covered: bool
) -> None:
    assert covers(wide, narrow) is covered


def test_covered_patterns_are_left_out_of_filters() -> None:
    patterns = ["user.created", "user.*", "vendor.status.changed", "user.*", "*.created"]

    assert without_covered(patterns) == ("*.created", "user.*", "vendor.status.changed")


@pytest.mark.parametrize("key", ["u-1", "A_b-9", "0"])
def test_a_plain_key_stands_in_a_subject_as_it_is(key: str) -> None:
    assert encode_key(key) == key


@pytest.mark.parametrize(
    ("key", "token"),
    [("", "="), ("a.b", "=YS5i"), ("a b", "=YSBi"), ("*", "=Kg"), (">", "=Pg"), ("ü", "=w7w")],
)
def test_another_key_is_marked_and_encoded(key: str, token: str) -> None:
    assert encode_key(key) == token


def test_every_subject_and_stream_begins_with_the_namespace() -> None:
    shop = Subjects("shop")

    assert shop.stream == "SHOP"
    assert shop.later_stream == "SHOP_LATER"
    assert shop.state_stream == "SHOP_STATE"
    assert shop.dead_letter_stream == "SHOP_DLQ"
    assert shop.attempts_bucket == "SHOP_ATTEMPTS"
    assert shop.event("user.created") == "shop.user.created"
    assert shop.inbox("mail", "send", "1") == "shop-inbox.mail.send.1"
    assert shop.state("user.moved", "u.1") == "shop-state.user.moved.=dS4x"
    assert shop.due("user.created") == "shop-due.user.created"
    assert shop.schedule("mail", "id 1") == "shop-sched.mail.=aWQgMQ"
    assert shop.parked("mail", "send", 7) == "shop-sched.mail.send.7"
    assert shop.retry("mail", "send", "user.created") == "shop-retry.mail.send.user.created"
    assert shop.dead_letter("mail", "send", "user.created") == "shop-dlq.mail.send.user.created"


@pytest.mark.parametrize("namespace", ["", "Events", "9lives", "a.b", "a-b", "a b", "x" * 33, "*"])
def test_a_namespace_is_one_token_that_is_also_a_stream_name(namespace: str) -> None:
    with pytest.raises(SubjectError, match="isn't a namespace"):
        Subjects(namespace)


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("events.user.created", "user.created"),
        ("events-retry.mail.send.user.created", "user.created"),
        ("events-retry.mail.send", None),
        ("events-dlq.mail.send.user.created", None),
        ("eventsx.user.created", None),
        ("other.user.created", None),
        ("", None),
    ],
)
def test_the_event_name_is_read_from_event_and_retry_subjects(
    subject: str, name: str | None
) -> None:
    assert Subjects().event_name(subject) == name
