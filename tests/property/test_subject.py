"""Subjects: never a wildcard or a space where a name belongs, and covering against brute force."""

import re
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from eventbus.errors import SubjectError
from eventbus.subject import (
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

ODD = st.sampled_from(["*", ">", ".", " ", "\t", "\r\n", "\x00", "ü", "a", "_", "-", "1", "A"])
NAMES = st.text() | st.lists(ODD, max_size=8).map("".join)
TOKENS = ("a", "b", "*", ">")


def is_safe(subject: str) -> bool:
    """Tell whether NATS takes a subject literally: printable ASCII tokens, no wildcard."""
    return all(re.fullmatch(r"[!-)+-\-/-=?-~]+", token) for token in subject.split("."))


def accepted(check: object, text: str) -> bool:
    try:
        check(text)  # type: ignore[operator]
    except SubjectError:
        return False
    return True


@given(NAMES, NAMES, NAMES, NAMES)
def test_what_passes_the_checks_makes_a_safe_subject(
    name: str, service: str, listener: str, key: str
) -> None:
    name = name if accepted(check_event_name, name) else "user.created"
    service = service if accepted(check_service_name, service) else "mail"
    listener = listener if accepted(lambda one: check_name(one, "listener"), listener) else "send"
    key = key.encode(errors="replace").decode()
    subjects = Subjects()

    built = [
        subjects.event(name),
        subjects.inbox(service, listener, key),
        subjects.state(name, key),
        subjects.due(name),
        subjects.schedule(service, key),
        subjects.parked(service, listener, 7),
        subjects.retry(service, listener, name),
        subjects.dead_letter(service, listener, name),
    ]

    assert [subject for subject in built if not is_safe(subject)] == []
    assert subjects.event_name(subjects.event(name)) == name
    assert subjects.event_name(subjects.retry(service, listener, name)) == name
    assert subjects.event_name(subjects.dead_letter(service, listener, name)) is None


@given(NAMES)
def test_the_name_in_any_subject_is_an_event_name_or_none(text: str) -> None:
    for subject in (text, f"events.{text}", f"events-retry.{text}", f"events-retry.a.b.{text}"):
        name = Subjects().event_name(subject)
        assert name is None or accepted(check_event_name, name)


@given(NAMES)
def test_a_name_is_refused_with_a_reason_or_is_a_pattern_that_takes_itself(text: str) -> None:
    if accepted(check_event_name, text):
        assert accepted(check_pattern, text)
        assert matches(text, text)


@given(NAMES)
def test_a_key_is_one_safe_token(key: str) -> None:
    key = key.encode(errors="replace").decode()

    token = encode_key(key)

    assert "." not in token
    assert is_safe(token)


@given(st.lists(NAMES.map(lambda key: key.encode(errors="replace").decode()), unique=True))
def test_different_keys_have_different_tokens(keys: list[str]) -> None:
    assert len({encode_key(key) for key in keys}) == len(keys)


@given(
    st.tuples(
        st.from_regex(r"[a-c_-]{1,4}", fullmatch=True),
        st.from_regex(r"[a-c_-]{1,4}", fullmatch=True),
    ),
    st.tuples(
        st.from_regex(r"[a-c_-]{1,4}", fullmatch=True),
        st.from_regex(r"[a-c_-]{1,4}", fullmatch=True),
    ),
)
def test_no_two_services_share_a_durable(one: tuple[str, str], other: tuple[str, str]) -> None:
    if not (accepted(check_service_name, one[0]) and accepted(check_service_name, other[0])):
        return

    assert (one == other) is ("__".join(one) == "__".join(other))


# Covering, against every name there can be ------------------------------------------------------

PATTERNS = [
    ".".join(tokens)
    for length in (1, 2, 3)
    for tokens in product(TOKENS, repeat=length)
    if ">" not in tokens[:-1]
]
SUBJECTS = [
    ".".join(tokens)
    for length in (1, 2, 3, 4)
    for tokens in product(("a", "b", "c"), repeat=length)
]


def naive(pattern: str, subject: str) -> bool:
    """Match by the words of the NATS documentation, as a regular expression."""
    parts = [
        {"*": r"[^.]+", ">": r"[^.]+(\.[^.]+)*"}.get(token, re.escape(token))
        for token in pattern.split(".")
    ]
    return re.fullmatch(r"\.".join(parts), subject) is not None


TAKEN = {
    pattern: frozenset(subject for subject in SUBJECTS if naive(pattern, subject))
    for pattern in PATTERNS
}


def test_matching_agrees_with_the_naive_model_on_everything_small() -> None:
    wrong = [
        (pattern, subject)
        for pattern, taken in TAKEN.items()
        for subject in SUBJECTS
        if matches(pattern, subject) is not (subject in taken)
    ]

    assert wrong == []


def test_covering_agrees_with_the_naive_model_on_everything_small() -> None:
    # The subjects go one token deeper than the patterns and hold a token that no pattern names,
    # so that taking a subset of them means taking a subset of all.
    wrong = [
        (wide, narrow)
        for wide, narrow in product(PATTERNS, PATTERNS)
        if covers(wide, narrow) is not (TAKEN[narrow] <= TAKEN[wide])
    ]

    assert wrong == []


@given(st.lists(st.sampled_from(PATTERNS), max_size=6))
def test_leaving_out_covered_patterns_takes_the_same_events(patterns: list[str]) -> None:
    kept = without_covered(patterns)

    assert set(kept) <= set(patterns)
    assert frozenset().union(*(TAKEN[one] for one in kept)) == frozenset().union(
        *(TAKEN[one] for one in patterns)
    )
    assert not any(one != other and covers(one, other) for one in kept for other in kept)


def test_every_valid_pattern_takes_an_event() -> None:
    events = [subject for subject in SUBJECTS if accepted(check_event_name, subject)]

    useless = [
        pattern
        for pattern in PATTERNS
        if is_pattern(pattern)
        and accepted(check_pattern, pattern)
        and not any(matches(pattern, event) for event in events)
    ]

    assert useless == []
