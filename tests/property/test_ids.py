"""Derived ids: one for each list of parts."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from eventbus.ids import derived_id, is_id, uuid7

Parts = tuple[bytes, ...]
PARTS = st.lists(st.binary(max_size=6), max_size=5).map(tuple)


@st.composite
def regrouped(draw: st.DrawFn) -> tuple[Parts, Parts]:
    """Draw two lists of parts that are equal once they are joined."""
    joined = draw(st.binary(min_size=1, max_size=12))
    cuts = st.lists(st.integers(0, len(joined)), max_size=4).map(sorted)

    def cut(at: list[int]) -> Parts:
        ends = [0, *at, len(joined)]
        return tuple(joined[a:b] for a, b in pairwise(ends))

    return cut(draw(cuts)), cut(draw(cuts))


@given(PARTS, PARTS)
def test_ids_are_equal_for_equal_parts_and_only_then(one: Parts, other: Parts) -> None:
    assert (derived_id(*one) == derived_id(*other)) is (one == other)


@given(regrouped())
def test_where_one_part_ends_and_the_next_begins_matters(pair: tuple[Parts, Parts]) -> None:
    one, other = pair

    assert (derived_id(*one) == derived_id(*other)) is (one == other)


@given(st.lists(st.binary() | st.text(alphabet=st.characters(codec="utf-8")) | st.integers()))
def test_whatever_it_is_made_of_a_derived_id_is_an_id(parts: list[bytes | str | int]) -> None:
    assert is_id(derived_id(*parts))


@given(st.text())
def test_an_id_is_safe_in_a_header_a_log_and_a_query(value: str) -> None:
    if is_id(value):
        assert value.isascii()
        assert value.isprintable()
        assert not any(char.isspace() for char in value)


@given(st.lists(st.none(), min_size=2, max_size=200))
def test_fresh_ids_increase(turns: list[None]) -> None:
    made = [uuid7() for _ in turns]

    assert made == sorted(set(made))
