"""The image of the services, as far as it can be judged without building it."""

import http.server
import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
# Of each instruction: its lines joined, as the builder reads them.
INSTRUCTIONS = [
    tuple(line.split(maxsplit=1))
    for line in DOCKERFILE.read_text().replace("\\\n", "").splitlines()
    if line and not line.startswith("#")
]


def arguments(instruction: str) -> list[str]:
    return [rest for word, rest in INSTRUCTIONS if word == instruction]


@contextmanager
def answering(status: int) -> Iterator[int]:
    """Run an HTTP server that gives this answer to /livez; give its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/livez" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        # It looks every so many seconds whether it is to stop.
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def healthy(port: int) -> bool:
    command = arguments("HEALTHCHECK")[0].split("CMD", 1)[1]
    _, *rest = json.loads(command)
    environment = {**os.environ, "EVENTBUS_METRICS_PORT": str(port)}
    done = subprocess.run(
        [sys.executable, *rest], env=environment, capture_output=True, timeout=10, check=False
    )
    return done.returncode == 0


@pytest.mark.parametrize(("status", "expected"), [(200, True), (503, False)])
def test_the_health_check_asks_livez(status: int, expected: bool) -> None:
    with answering(status) as port:
        assert healthy(port) is expected


def test_the_health_check_fails_where_nothing_answers() -> None:
    with answering(200) as port:
        pass

    assert not healthy(port)


def test_it_ends_by_sigterm_and_does_not_run_as_root() -> None:
    assert arguments("STOPSIGNAL") == ["SIGTERM"]
    assert arguments("USER") == ["10001"]


def test_its_command_is_not_run_by_a_shell_which_would_keep_the_signal() -> None:
    assert json.loads(arguments("CMD")[0])[0] == "eventbus"


def test_it_installs_extras_that_the_package_has() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    asked = re.search(r'"\.\[([\w,]+)\]"', " ".join(arguments("RUN")))

    assert asked is not None
    assert set(asked[1].split(",")) <= set(project["optional-dependencies"])


def test_what_it_copies_exists_and_is_let_through() -> None:
    ignored = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    let_through = {line[1:] for line in ignored if line.startswith("!")}

    copied = {
        name
        for rest in arguments("COPY")
        if not rest.startswith("--from")
        for name in rest.split()[:-1]
    }

    assert copied == let_through
    assert [name for name in copied if not (ROOT / name).exists()] == []
