"""What the repository promises outside its code: the wheel, the versions, the settings' example."""

import re
from pathlib import Path

import pytest

from eventbus.duration import seconds
from eventbus.settings import ALIASES, EXTRA_VARIABLES, Settings

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / ".env.example").read_text()


@pytest.mark.slow
def test_constraints_are_exact_versions_and_name_no_host() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()

    odd = [line for line in lines if not re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[0-9a-z.+]+", line)]

    assert odd == []
    assert not any("://" in line for line in lines)


def test_the_example_lists_every_setting_and_nothing_else() -> None:
    listed = set(re.findall(r"^#(EVENTBUS_[A-Z_]+)=", EXAMPLE, re.MULTILINE))

    fields = {f"EVENTBUS_{name.upper()}" for name in Settings.model_fields}
    assert listed == fields | EXTRA_VARIABLES


def test_the_example_shows_the_defaults() -> None:
    shown = dict(re.findall(r"^#EVENTBUS_([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))

    for name, field in Settings.model_fields.items():
        default = field.get_default()
        text = shown[name.upper()]
        if default is None:
            assert text == "", name
        elif isinstance(default, float):
            assert seconds(text) == default, name
        elif isinstance(default, tuple):
            assert text.split(",") == list(default), name
        else:
            assert text == str(default), name


def test_the_example_names_every_alias() -> None:
    missing = [name for names in ALIASES.values() for name in names if name not in EXAMPLE]

    assert missing == []
