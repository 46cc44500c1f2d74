"""Records that are quick to make are still frozen dataclasses."""

from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field, replace
from types import MappingProxyType

import pytest

from eventbus.record import quick

NOTHING: Mapping[str, str] = MappingProxyType({})


@quick
@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 2
    tags: Mapping[str, str] = field(default_factory=lambda: NOTHING, compare=False)


def test_a_record_has_its_fields_and_defaults() -> None:
    point = Point(1)

    assert (point.x, point.y, point.tags) == (1, 2, NOTHING)
    assert repr(point) == "Point(x=1, y=2, tags=mappingproxy({}))"


def test_a_record_is_frozen_once_it_is_made() -> None:
    point = Point(1, y=3)

    with pytest.raises(FrozenInstanceError):
        point.x = 2  # type: ignore[misc]
    assert not hasattr(point, "__dict__")


def test_records_are_compared_and_hashed_by_their_fields() -> None:
    assert Point(1) == Point(x=1, y=2)
    assert hash(Point(1)) == hash(Point(1, 2))
    assert Point(1) != Point(2)


def test_a_record_can_be_copied_with_a_change() -> None:
    assert replace(Point(1), y=5) == Point(1, 5)


def test_a_missing_field_is_an_error() -> None:
    with pytest.raises(TypeError, match="x"):
        Point()  # type: ignore[call-arg]
