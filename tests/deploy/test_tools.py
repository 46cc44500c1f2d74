"""What the makers' own tools say of the files in deploy/, where these tools are installed.

A tool that is missing leaves its checks out, and the header of the run says so.
"""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import deploy_tools

DEPLOY = Path(__file__).parents[2] / "deploy"
CHECKS = [
    ("promtool", ["check", "config", "prometheus.yml"], "prometheus"),
    ("promtool", ["test", "rules", "rules.test.yml"], "prometheus"),
    ("hadolint", ["Dockerfile"], "."),
]
THERE = [one for one in CHECKS if deploy_tools()[one[0]]]

if THERE:  # else there is nothing to run, and a skip would say less than the header

    @pytest.mark.parametrize(("name", "arguments", "folder"), THERE)
    def test_a_tool_finds_nothing_wrong(name: str, arguments: list[str], folder: str) -> None:
        done = subprocess.run(
            [str(deploy_tools()[name]), *arguments],
            cwd=DEPLOY / folder,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

        assert done.returncode == 0, done.stdout + done.stderr
