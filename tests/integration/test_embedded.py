"""The embedded server against the real binary: starting, faults, and refusing with a reason."""

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import nats
import pytest

from eventbus.embedded import MIN_VERSION, NatsServer, find_server, server_version
from eventbus.errors import ServerNotFoundError, ServerStartError, ServerTooOldError

pytestmark = [pytest.mark.nats, pytest.mark.usefixtures("_nats_binary")]

OWNER = """
import signal, sys
from eventbus.embedded import NatsServer
server = NatsServer(store=sys.argv[1]).start()
if sys.argv[2] == "pause":
    server.pause()
print(server._process.popen.pid, flush=True)
if sys.argv[2] != "leave":
    signal.pause()
"""


def eventually(condition: Callable[[], bool], seconds: float = 30) -> bool:
    """Wait for another process's state, which nothing announces."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.01)
    return True


def is_alive(pid: int) -> bool:
    """Look at the state: where nobody reaps orphans, a dead process stays as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextmanager
def owner(store: Path, then: str = "wait") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a Python process that owns a server; give it and the server's pid."""
    command = [sys.executable, "-c", OWNER, str(store), then]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        try:
            yield process, pid
        finally:
            process.kill()
            with suppress(ProcessLookupError):  # what the test may have found not to end
                os.kill(pid, signal.SIGKILL)


def monitored(server: NatsServer, path: str, timeout: float = 5) -> str:
    """Ask over HTTP: a nats-py client that is refused, or cancelled on its way, leaks a socket."""
    with urllib.request.urlopen(f"{server.monitoring_url}{path}", timeout=timeout) as answer:
        return answer.read().decode()


async def stored(server: NatsServer) -> list[str]:
    """Return the names of the streams on a server."""
    client = await nats.connect(server.url, allow_reconnect=False)
    try:
        return [info.config.name or "" for info in await client.jetstream().streams_info()]
    finally:
        await client.close()


async def add_stream(server: NatsServer, name: str) -> None:
    client = await nats.connect(server.url, allow_reconnect=False)
    try:
        await client.jetstream().add_stream(name=name, subjects=[f"{name}.>"])
    finally:
        await client.close()


async def test_a_started_server_is_healthy_and_has_jetstream(nats_server: NatsServer) -> None:
    await add_stream(nats_server, "ONE")

    assert nats_server.running
    assert await stored(nats_server) == ["ONE"]
    assert nats_server.version == server_version(find_server())
    assert '"status":"ok"' in monitored(nats_server, "/healthz")


def test_two_servers_run_side_by_side(nats_server: NatsServer) -> None:
    with NatsServer() as other:
        assert other.url != nats_server.url
        assert other.store != nats_server.store


def test_stop_ends_the_process_and_removes_the_temporary_folder() -> None:
    server = NatsServer().start()
    store = server.store

    server.stop()
    server.stop()

    assert not server.running
    assert not store.exists()
    with pytest.raises(RuntimeError, match="isn't started"):
        _ = server.url


async def test_a_named_folder_keeps_its_streams_from_one_server_to_the_next(
    tmp_path: Path,
) -> None:
    with NatsServer(store=tmp_path / "bus") as first:
        await add_stream(first, "KEPT")

    async with NatsServer(store=tmp_path / "bus") as second:
        assert await stored(second) == ["KEPT"]


async def test_a_killed_server_restarts_on_the_same_port_with_its_streams(
    nats_server: NatsServer,
) -> None:
    await add_stream(nats_server, "KEPT")
    before = nats_server.url, nats_server.monitoring_url

    nats_server.kill()
    was_running = nats_server.running
    nats_server.restart()

    assert not was_running
    assert (nats_server.url, nats_server.monitoring_url) == before
    assert await stored(nats_server) == ["KEPT"]


def test_a_server_that_dies_by_itself_is_noticed(nats_server: NatsServer) -> None:
    assert nats_server._process is not None

    os.kill(nats_server._process.popen.pid, signal.SIGKILL)

    assert eventually(lambda: not nats_server.running)


def test_a_paused_server_answers_nothing_until_it_resumes(nats_server: NatsServer) -> None:
    nats_server.pause()
    with pytest.raises(TimeoutError):
        monitored(nats_server, "/healthz", timeout=0.2)
    assert nats_server.running

    nats_server.resume()

    assert '"status":"ok"' in monitored(nats_server, "/healthz")


def test_a_paused_server_can_be_stopped_without_force(nats_server: NatsServer) -> None:
    process = nats_server._process
    assert process is not None
    nats_server.pause()

    nats_server.stop()

    assert process.popen.returncode != -signal.SIGKILL


async def test_extra_configuration_reaches_the_server() -> None:
    with NatsServer(config='authorization { user: "ada", password: "x" }') as server:
        assert '"auth_required": true' in monitored(server, "/varz")
        client = await nats.connect(server.url, user="ada", password="x")
        await client.close()


async def test_reload_applies_another_configuration(nats_server: NatsServer) -> None:
    nats_server.reload("max_payload: 4096")

    assert eventually(lambda: "Reloaded: max_payload" in nats_server.log)
    client = await nats.connect(nats_server.url)
    assert client.max_payload == 4096
    await client.close()


async def test_jetstream_can_be_left_out() -> None:
    with NatsServer(jetstream=False) as server:
        client = await nats.connect(server.url)

        with pytest.raises(nats.js.errors.ServiceUnavailableError):
            await client.jetstream().account_info()
        await client.close()


def test_sync_interval_reaches_the_server() -> None:
    with NatsServer(sync_interval="always") as server:
        assert '"sync_always": true' in monitored(server, "/jsz")


def test_a_folder_in_use_is_refused_by_name(tmp_path: Path) -> None:
    with NatsServer(store=tmp_path) as first:
        with pytest.raises(ServerStartError) as refused:
            NatsServer(store=tmp_path).start()

        assert str(refused.value) == (
            f"folder '{tmp_path}' is in use by another nats-server "
            f"(started by process {os.getpid()}); stop it, or choose another folder"
        )
        assert first.running


def test_a_folder_stays_locked_while_an_orphaned_server_uses_it(tmp_path: Path) -> None:
    with NatsServer(store=tmp_path) as server:
        assert server._lock is not None
        held, server._lock = server._lock, None

        os.close(held)

        with pytest.raises(ServerStartError, match="in use"):
            NatsServer(store=tmp_path).start()


def test_a_port_that_is_taken_is_refused_with_the_servers_own_words(
    nats_server: NatsServer,
) -> None:
    port = int(nats_server.url.rsplit(":", 1)[1])

    with pytest.raises(ServerStartError, match="address already in use"):
        NatsServer(port=port).start()


def test_a_wrong_configuration_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    server = NatsServer(store=tmp_path, config="max_payload: many")

    with pytest.raises(ServerStartError, match=r"nats-server\.conf:5:"):
        server.start()

    assert not server.running
    with NatsServer(store=tmp_path) as after:
        assert after.running


def fake_binary(folder: Path, says: str) -> Path:
    """Make a program that answers --version, and otherwise runs without doing anything."""
    binary = folder / "fake-nats"
    binary.write_text(f"#!/bin/sh\necho '{says}'\n[ $1 = --version ] || exec sleep 60\n")
    binary.chmod(0o755)
    return binary


def test_a_server_that_isnt_ready_in_time_is_stopped(tmp_path: Path) -> None:
    server = NatsServer(binary=fake_binary(tmp_path, "nats-server: v9.9.9"))

    with pytest.raises(ServerStartError, match=r"wasn't ready after 0\.1 s"):
        server.start(timeout=0.1)

    assert not server.running


def test_a_server_that_is_too_old_is_refused_naming_both_versions(tmp_path: Path) -> None:
    old = fake_binary(tmp_path, "nats-server: v2.11.9")

    with pytest.raises(ServerTooOldError) as refused:
        NatsServer(binary=old).start()

    assert (refused.value.found, refused.value.needed) == ("2.11.9", MIN_VERSION)


def test_another_program_is_refused(tmp_path: Path) -> None:
    other = fake_binary(tmp_path, "GNU coreutils 9.1.0")

    with pytest.raises(ServerStartError, match="isn't a nats-server"):
        NatsServer(binary=other).start()


def test_the_environment_names_the_binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = fake_binary(tmp_path, "nats-server: v9.9.9")

    monkeypatch.setenv("EVENTBUS_NATS_SERVER", str(wanted))

    assert find_server() == wanted


def test_a_binary_named_in_the_environment_has_to_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTBUS_NATS_SERVER", "/nonexistent/nats-server")

    with pytest.raises(ServerNotFoundError, match="/nonexistent/nats-server"):
        NatsServer().start()


def test_no_binary_at_all_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVENTBUS_NATS_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    with pytest.raises(ServerNotFoundError, match=r"eventbus\[server\]"):
        find_server()


def test_a_server_started_in_a_thread_outlives_that_thread() -> None:
    server = NatsServer()
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()

    try:
        assert not eventually(lambda: not server.running, seconds=0.2)
    finally:
        server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the child of a killed parent")
@pytest.mark.parametrize("then", ["wait", "pause"])
def test_a_server_dies_with_its_killed_owner(tmp_path: Path, then: str) -> None:
    with owner(tmp_path, then) as (process, pid):
        assert is_alive(pid)

        process.kill()

        assert eventually(lambda: not is_alive(pid))


def test_a_server_ends_when_its_owner_exits_without_stopping_it(tmp_path: Path) -> None:
    with owner(tmp_path, "leave") as (process, pid):
        process.wait(30)

        assert eventually(lambda: not is_alive(pid))
    assert "Server Exiting" in (tmp_path / "nats-server.log").read_text()
