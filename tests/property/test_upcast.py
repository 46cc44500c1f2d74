"""Chains of upcasts: whatever the steps are, each version ends where one step after the other does."""

from functools import reduce

from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from eventbus.errors import DeclarationError, UnknownEventError
from eventbus.event import Event
from eventbus.registry import Registry
from eventbus.upcast import Payload, Upcast, upcast

NAME = "thing.changed"
VERSIONS = st.integers(1, 12)
STEPS = st.lists(st.tuples(VERSIONS, VERSIONS).filter(lambda one: one[0] < one[1]), max_size=12)
CLASSES = st.sets(VERSIONS, min_size=1)
PAYLOADS = st.dictionaries(st.text(max_size=5), st.integers() | st.none() | st.text(max_size=5))


def step(start: int, end: int) -> Upcast:
    def write(data: Payload) -> Payload:
        path: JsonValue = data.get("path", str(start))
        return data | {"path": f"{path}>{end}"}

    return upcast(NAME, from_version=start, to_version=end)(write)


def declared(version: int) -> type[Event]:
    class Changed(Event, name=NAME, version=version): ...

    # Made once more for each example, and in no module: nothing stands beside it.
    Changed.__module__ = "nowhere"
    return Changed


def known(classes: set[int], steps: list[tuple[int, int]]) -> Registry:
    registry = Registry()
    for version in classes:
        registry.register(declared(version))
    for start, end in dict(steps).items():
        registry.register_upcast(step(start, end))
    return registry


@given(CLASSES, STEPS, VERSIONS)
def test_what_passes_the_check_reaches_the_newest_version_from_everywhere(
    classes: set[int], steps: list[tuple[int, int]], version: int
) -> None:
    registry = known(classes, steps)
    try:
        registry.check()
    except DeclarationError:
        return

    try:
        reading = registry.reading(NAME, version)
    except UnknownEventError:
        assert version not in classes
        assert version not in dict(steps)
    else:
        if version in dict(steps) or version > max(classes):
            assert reading.version == max(classes)


@given(CLASSES, STEPS, VERSIONS)
def test_each_step_begins_where_the_one_before_it_ended(
    classes: set[int], steps: list[tuple[int, int]], version: int
) -> None:
    try:
        reading = known(classes, steps).reading(NAME, version)
    except UnknownEventError:
        return

    ends = [version, *(one.to_version for one in reading.steps)]
    assert [one.from_version for one in reading.steps] == ends[:-1]
    assert not reading.steps or ends[-1] == reading.version
    assert reading.version in classes


@given(PAYLOADS, st.integers(2, 9), st.integers(1, 8))
def test_going_all_the_way_is_going_a_part_and_then_the_rest(
    payload: dict[str, JsonValue], newest: int, middle: int
) -> None:
    steps = [(one, one + 1) for one in range(1, newest)]
    whole = known({newest}, steps).reading(NAME, 1).steps
    part = min(middle, newest)
    first = known({part}, steps[: part - 1]).reading(NAME, 1).steps
    rest = known({newest}, steps).reading(NAME, part).steps

    def taken(data: Payload, way: tuple[Upcast, ...]) -> Payload:
        return reduce(lambda so_far, one: one(so_far), way, dict(data))

    assert taken(payload, whole) == taken(taken(payload, first), rest)
