"""The README's code works when it is pasted."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.usefixtures("_nats_binary")
def test_the_first_code_of_the_readme_runs_and_prints_what_it_says(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[0]
    pasted = tmp_path / "hello.py"
    pasted.write_text(code)
    clean = {name: value for name, value in os.environ.items() if "EVENTBUS" not in name}

    ran = subprocess.run(
        [sys.executable, str(pasted)],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (ran.returncode, ran.stdout) == (0, "welcome, ada@example.org\n"), ran.stderr


def test_the_files_that_the_readme_names_exist() -> None:
    named = re.findall(r"\]\(([^)#]+)\)", README.read_text())

    assert [name for name in named if not (README.parent / name).exists()] == []
