"""A comparison judges by medians, against the best of those that a target names, and says who is missing."""

from xml.etree import ElementTree

from bench.comparison import Comparison
from bench.report import markdown, svg


def comparison(**rates: list[float]) -> Comparison:
    """A comparison of emit_256 and consume where contestants have these rates in both."""
    runs = {who: [{"per_second": rate} for rate in found] for who, found in rates.items()}
    return Comparison(
        {"emit_256": dict(runs), "consume": dict(runs)},
        {"emit_256": 100, "consume": 100},
        rounds=3,
        missing={"cliffracer": "ImportError: no such thing"},
    )


def test_a_target_is_judged_by_medians() -> None:
    found = comparison(ours=[30.0, 1.0, 31.0], plain=[10.0, 10.0, 99.0])

    first = found.verdicts()[0]

    assert (first.target.case, first.ratio, first.reached) == ("emit_256", 3.0, True)


def test_the_best_of_the_others_counts_also_when_it_is_pushed_to() -> None:
    found = comparison(ours=[30.0], plain=[10.0], walnats=[12.0])
    found.found["consume_push"] = {"plain": [{"per_second": 25.0}]}

    best = [one for one in found.verdicts() if "best" in one.target.what]

    assert [one.against for one in best] == ["walnats emit_256", "plain consume_push"]
    assert [one.reached for one in best] == [True, False]


def test_who_is_missing_and_what_failed_is_named() -> None:
    found = comparison(ours=[30.0], plain=[10.0])
    found.found["emit_256"]["walnats"] = [{}]

    text = markdown(found)

    assert "cliffracer could not run here (ImportError: no such thing)" in text
    assert "Failed: walnats at emit_256." in text


def test_the_plot_is_an_image_with_a_bar_for_each_contestant_that_ran() -> None:
    found = comparison(ours=[30.0], plain=[10.0])
    found.found["emit_256"]["walnats"] = [{}]

    image = ElementTree.fromstring(svg(found))

    bars = [one for one in image.iter("{http://www.w3.org/2000/svg}rect") if one.get("y")]
    assert len(bars) == 4, "two contestants at two cases"
