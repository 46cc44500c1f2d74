"""Each row of docs/coming-from.md has an example, and every example runs."""

import ast
import asyncio
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "coming-from.md"
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
PRELUDE, *SECTIONS = PAGE.read_text().split("\n## ")
HEAD = BLOCK.findall(PRELUDE)[0]


def title(section: str) -> str:
    return section.partition("\n")[0]


def rows(section: str) -> list[str]:
    """Return what one knows, from a section's table."""
    cells = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("|")]
    return cells[2:]


def examples() -> Iterator[object]:
    for section in SECTIONS:
        for number, code in enumerate(BLOCK.findall(section), 1):
            yield pytest.param(code, id=f"{title(section)} {number}")


@pytest.mark.parametrize("section", SECTIONS, ids=title)
def test_each_row_stands_in_an_example(section: str) -> None:
    code = "\n".join(BLOCK.findall(section))
    shown = set(re.findall(r"^\s*# (.*)$", code, re.MULTILINE))

    assert rows(section)
    assert [row for row in rows(section) if row not in shown] == []


@pytest.mark.parametrize("code", [*examples()])
def test_the_example_runs(code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("APP_EVENT_DRIVER", "EVENTS_DEFAULT_QUEUE", "EVENTS_RETRY_ATTEMPTS"):
        monkeypatch.setenv(name, "")  # examples set them; this puts back what was there
    compiled = compile(
        f"{HEAD}\n{code}",
        "coming-from.md",
        "exec",
        flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        dont_inherit=True,
    )

    async def run() -> None:
        done = eval(compiled, {"__name__": "example"})
        if inspect.isawaitable(done):
            await done

    asyncio.run(run())
