"""The tests that docs/guarantees.md names exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_promise_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text()
    code = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))

    named = set(re.findall(r"`(test_\w+)`", text))
    files = set(re.findall(r"`(tests/[\w/]+\.py)`", text))

    assert len(named) > 20
    assert {name for name in named if f"def {name}(" not in code} == set()
    assert {name for name in files if not (ROOT / name).exists()} == set()
