"""Do the cases bite? On the naive bus each of them has to fail, and by what it is about."""

import pytest

from tests.faults.naive import CANT_APPLY

__all__ = ("judged", "summary", "with_reason")

BROKEN_TEST = (AttributeError, ImportError, NameError, NotImplementedError, TypeError, KeyError)
"""Raised by a case that didn't get to its fault: that is no failure of the bus."""
BITES = "bites"


def with_reason(items: list[pytest.Item]) -> None:
    """Skip what isn't a case, or says nothing about a naive bus."""
    for item in items:
        function = getattr(item, "originalname", item.name)
        if item.get_closest_marker("faults") is None:
            item.add_marker(pytest.mark.skip(reason="not a fault case"))
        elif function in CANT_APPLY:
            item.add_marker(pytest.mark.skip(reason=CANT_APPLY[function]))


def judged(report: pytest.TestReport, call: pytest.CallInfo[None]) -> pytest.TestReport:
    """Return the report of a case with its verdict turned round."""
    if report.when != "call" or report.skipped:
        return report
    if report.passed:
        report.outcome = "failed"
        report.longrepr = "it passes on the naive bus: it has no teeth"
    elif call.excinfo is not None and not _is_broken(call.excinfo.value):
        report.outcome = "passed"
        report.longrepr = None
        report.sections.clear()
        report.user_properties.append((BITES, _first_line(call.excinfo.value)))
    return report


def summary(reports: list[pytest.TestReport]) -> list[str]:
    """Return a line for each case that bites: what it is, and what it found."""
    lines: list[str] = []
    for report in reports:
        found = dict(report.user_properties).get(BITES)
        if found is not None:
            lines += [report.nodeid.rpartition("::")[2], f"    {found}"]
    return lines


def _is_broken(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_is_broken(one) for one in error.exceptions)
    return isinstance(error, BROKEN_TEST)


def _first_line(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"[:150]
