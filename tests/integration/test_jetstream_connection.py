"""Connecting to real servers: every way to log in, what is refused at once, what is waited for."""

import asyncio
import json
import time
import urllib.request
from itertools import count
from pathlib import Path

import nats.errors
import nkeys
import pytest

from eventbus.drivers.base import Connected, Disconnected
from eventbus.drivers.jetstream.credentials import login_of
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.drivers.jetstream.link import Link
from eventbus.drivers.jetstream.plain import PlainClient
from eventbus.embedded import NatsServer
from eventbus.errors import (
    CertificateError,
    EventBusError,
    NoJetStreamError,
    NotAuthorizedError,
    SettingsError,
)
from tests.integration.identities import Authority, Operator, user_nkey
from tests.integration.rig import Line, Told, driver_of, event, free_port, settings_of
from tests.waiting import eventually

pytestmark = [pytest.mark.nats, pytest.mark.usefixtures("_nats_binary")]

PASSWORD = 'authorization { user: "ada", password: "right" }'
TOKEN = 'authorization { token: "right" }'


async def refused(url: str, within: float = 30, **settings: object) -> EventBusError:
    """Return the error that entering raises, in time."""
    started = time.monotonic()
    with pytest.raises(EventBusError) as raised:
        async with driver_of(url, **settings):
            pass
    assert time.monotonic() - started < within
    assert "nats: " not in str(raised.value)
    return raised.value


def connections(server: NatsServer) -> list[dict[str, object]]:
    with urllib.request.urlopen(f"{server.monitoring_url}/connz?subs=1", timeout=5) as answer:
        return list(json.load(answer)["connections"])


async def test_connecting_can_be_cancelled_at_any_moment(nats_server: NatsServer) -> None:
    login = login_of(settings_of(nats_server.url), "mailer")
    went_on: list[int] = []
    is_made = False

    for turns in count():
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            connecting = group.create_task(Link.open(nats_server.url, login, lambda: None))
            for _ in range(turns):
                await asyncio.sleep(0)
            is_made = connecting.done()
            connecting.cancel()
        if not connecting.cancelled():
            await connecting.result().close()
            if is_made:
                break
            went_on.append(turns)

    assert (is_made, went_on) == (True, [])


async def test_the_server_knows_a_connection_by_its_service(nats_server: NatsServer) -> None:
    told = Told()
    async with driver_of(nats_server.url, told) as driver:
        (connection,) = await asyncio.to_thread(connections, nats_server)

        assert connection["name"] == "mailer"
        assert str(connection["subscriptions_list"]).startswith("['_INBOX_mailer.")
        assert driver.status().ready
    assert told.signals[0] == Connected(nats_server.url, nats_server.version, again=False)
    assert (driver.name, driver.features.durable, driver.features.ordered) == (
        "jetstream",
        True,
        True,
    )


async def test_the_settings_may_name_the_connection(nats_server: NatsServer) -> None:
    async with driver_of(nats_server.url, connection_name="mailer-7"):
        (connection,) = await asyncio.to_thread(connections, nats_server)
    assert connection["name"] == "mailer-7"


async def test_leaving_waits_for_nothing_and_leaves_no_connection(
    nats_server: NatsServer,
) -> None:
    async with driver_of(nats_server.url):
        started = time.monotonic()
    assert time.monotonic() - started < 5
    await eventually(lambda: _is_alone(nats_server))


async def _is_alone(server: NatsServer) -> bool:
    return not await asyncio.to_thread(connections, server)


async def test_what_the_block_raises_comes_out_as_it_is(nats_server: NatsServer) -> None:
    with pytest.raises(ZeroDivisionError):
        async with driver_of(nats_server.url):
            raise ZeroDivisionError


@pytest.mark.parametrize(
    ("config", "login"),
    [
        (PASSWORD, {"nats_user": "ada", "nats_password": "right"}),
        (TOKEN, {"nats_token": "right"}),
    ],
    ids=["password", "token"],
)
async def test_the_right_credentials_are_let_in(config: str, login: dict[str, object]) -> None:
    with NatsServer(config=config) as server:
        async with driver_of(server.url, **login) as driver:
            assert (await driver.publish(event())).sequence == 1


async def test_credentials_in_the_url_work_and_are_told_to_nobody() -> None:
    told = Told()
    with NatsServer(config=PASSWORD) as server:
        async with driver_of(server.url.replace("//", "//ada:right@"), told) as driver:
            assert (await driver.publish(event())).sequence == 1
        assert told.of(Connected)[0].server == server.url
        wrong = await refused(server.url.replace("//", "//ada:secret@"))
    assert "secret" not in str(wrong)


async def test_an_nkey_is_let_in_from_the_setting_and_from_a_file(tmp_path: Path) -> None:
    seed, public = user_nkey()
    (tmp_path / "mailer.nk").write_text(f"{seed}\n")
    with NatsServer(config=f"authorization {{ users = [ {{ nkey: {public} }} ] }}") as server:
        for given in (seed, str(tmp_path / "mailer.nk")):
            async with driver_of(server.url, nats_nkey_seed=given) as driver:
                assert driver.status().ready


async def test_a_creds_file_is_let_in(tmp_path: Path) -> None:
    operator = Operator()
    with NatsServer(config=operator.config) as server:
        path = operator.creds(tmp_path / "mailer.creds")
        async with driver_of(server.url, nats_creds=path) as driver:
            assert (await driver.publish(event())).sequence == 1


async def test_an_expired_login_is_replaced_by_the_renewed_one(tmp_path: Path) -> None:
    operator, told = Operator(), Told()
    path = operator.creds(tmp_path / "mailer.creds", valid=2)
    with NatsServer(config=operator.config) as server:
        async with driver_of(server.url, told, nats_creds=path) as driver:
            operator.creds(path)

            lost = await told.until(Disconnected)
            await told.until(Connected, 2)

            assert (await driver.publish(event())).sequence == 1
    assert "expired" in lost.problem


@pytest.mark.parametrize(
    ("config", "login"),
    [
        (PASSWORD, {"nats_user": "ada", "nats_password": "wrong"}),
        (PASSWORD, {}),
        (TOKEN, {"nats_token": "wrong"}),
        (PASSWORD, {"nats_nkey_seed": user_nkey()[0]}),
    ],
    ids=["password", "nothing", "token", "nkey"],
)
async def test_wrong_credentials_are_refused_at_once(
    config: str, login: dict[str, object]
) -> None:
    with NatsServer(config=config) as server:
        error = await refused(server.url, **login)
    assert isinstance(error, NotAuthorizedError)
    assert "refused the credentials (Authorization Violation)" in str(error)
    assert "wrong" not in str(error)


async def test_an_expired_creds_file_is_refused_at_once(tmp_path: Path) -> None:
    operator = Operator()
    path = operator.creds(tmp_path / "mailer.creds", valid=-60)
    with NatsServer(config=operator.config) as server:
        error = await refused(server.url, nats_creds=path)
    assert isinstance(error, NotAuthorizedError)


async def test_without_permission_to_receive_answers_it_says_which_to_give() -> None:
    config = """authorization { users = [ { user: "ada", password: "right",
      permissions: { subscribe: { allow: ["_INBOX_other.>"] } } } ] }"""
    with NatsServer(config=config) as server:
        error = await refused(server.url, nats_user="ada", nats_password="right")
    assert isinstance(error, NotAuthorizedError)
    assert "doesn't let us subscribe to our inbox ('_INBOX_mailer.>')" in str(error)


@pytest.mark.parametrize(
    ("setting", "content"),
    [
        ("nats_creds", None),
        ("nats_creds", "not a creds file"),
        ("nats_creds", "--BEGIN NATS USER JWT--\neyJ0\n--BEGIN USER NKEY SEED--\nSUAMISTYPED\n"),
        ("nats_nkey_seed", None),
        ("nats_nkey_seed", "SUANOTASEED"),
        ("nats_nkey_seed", nkeys.encode_seed(bytes(32), nkeys.PREFIX_BYTE_ACCOUNT).decode()),
        ("tls_ca", None),
    ],
)
async def test_a_file_that_isnt_what_its_setting_says_is_refused_by_name(
    nats_server: NatsServer, tmp_path: Path, setting: str, content: str | None
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_text(content)

    error = await refused(nats_server.url, **{setting: str(path)})

    assert isinstance(error, SettingsError)
    assert f"EVENTBUS_{setting.upper()}" in str(error)
    assert content is None or content not in str(error)


async def test_a_url_that_names_no_server_is_refused() -> None:
    error = await refused("nats://127.0.0.1:many")

    assert isinstance(error, SettingsError)


async def test_a_server_without_jetstream_is_refused() -> None:
    with NatsServer(jetstream=False) as server:
        error = await refused(server.url)
    assert isinstance(error, NoJetStreamError)


async def test_a_cluster_of_another_name_is_refused() -> None:
    config = 'server_name: one\ncluster { name: blue, listen: "127.0.0.1:-1" }'
    with NatsServer(jetstream=False, config=config) as server:
        error = await refused(server.url, provision="off", cluster_name="green")
        async with driver_of(server.url, provision="off", cluster_name="blue") as driver:
            assert driver.status().ready
    assert isinstance(error, SettingsError)
    assert "is 'blue', and EVENTBUS_CLUSTER_NAME is 'green'" in str(error)


async def test_a_server_that_isnt_there_yet_is_waited_for_and_told_of_once() -> None:
    told, port = Told(), free_port()
    driver = driver_of(f"nats://127.0.0.1:{port}", told)
    async with asyncio.TaskGroup() as group:
        entering = group.create_task(driver.__aenter__())
        first = await told.until(Disconnected)
        # A few rounds are refused meanwhile.
        await asyncio.sleep(0.7)
        before = driver.status()
        with NatsServer(port=port) as server:
            await told.until(Connected)
            await entering
            after = driver.status()
            await driver.__aexit__(None, None, None)
            expected = Connected(server.url, server.version, again=False)
    assert "Connect call failed" in first.problem
    assert len(told.of(Disconnected)) == 1
    assert before.problems == (f"not connected to NATS: {first.problem}",)
    assert after.ready
    assert told.of(Connected) == [expected]


def tls_config(certificate: tuple[Path, Path], ca: Path | None = None) -> str:
    verify = f', ca_file: "{ca}", verify: true' if ca else ""
    return f'tls {{ cert_file: "{certificate[0]}", key_file: "{certificate[1]}"{verify} }}'


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


async def test_tls_with_the_right_ca_connects(authority: Authority) -> None:
    with NatsServer(config=tls_config(authority.issue("server"))) as server:
        async with driver_of(server.url, tls_ca=authority.path) as driver:
            assert (await driver.publish(event())).sequence == 1


async def test_mutual_tls_with_the_right_certificate_connects(authority: Authority) -> None:
    cert, key = authority.issue("mailer")
    config = tls_config(authority.issue("server"), authority.path)
    with NatsServer(config=config) as server:
        tls = {"tls_ca": authority.path, "tls_cert": cert, "tls_key": key}
        async with driver_of(server.url, **tls) as driver:
            assert (await driver.publish(event())).sequence == 1


async def test_a_certificate_for_another_name_needs_that_name(authority: Authority) -> None:
    config = tls_config(authority.issue("named", host="nats.example.org"))
    with NatsServer(config=config) as server:
        error = await refused(server.url, tls_ca=authority.path)
        tls = {"tls_ca": authority.path, "tls_hostname": "nats.example.org"}
        async with driver_of(server.url, **tls) as driver:
            assert driver.status().ready
    assert isinstance(error, CertificateError)
    assert "127.0.0.1" in str(error)


async def test_a_server_of_an_unknown_ca_is_refused(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    with NatsServer(config=tls_config(authority.issue("server"))) as server:
        wrong = await refused(server.url, tls_ca=other.path)
        none = await refused(server.url.replace("nats:", "tls:"))
    assert isinstance(wrong, CertificateError)
    assert "unable to get local issuer certificate" in str(wrong)
    assert "EVENTBUS_TLS_CA" in str(wrong)
    assert isinstance(none, CertificateError)


async def test_a_server_with_an_expired_certificate_is_refused(authority: Authority) -> None:
    with NatsServer(config=tls_config(authority.issue("old", days=-1))) as server:
        error = await refused(server.url, tls_ca=authority.path)
    assert isinstance(error, CertificateError)
    assert "certificate has expired" in str(error)


async def test_a_client_without_or_with_an_expired_certificate_is_refused(
    authority: Authority,
) -> None:
    cert, key = authority.issue("expired", days=-1)
    config = tls_config(authority.issue("server"), authority.path)
    with NatsServer(config=config) as server:
        none = await refused(server.url, tls_ca=authority.path)
        old = await refused(server.url, tls_ca=authority.path, tls_cert=cert, tls_key=key)
    assert isinstance(none, CertificateError)
    assert isinstance(old, CertificateError)
    assert "EVENTBUS_TLS_CA, _CERT" in str(old)


async def test_an_unencrypted_server_gets_no_secret_where_tls_is_asked_for() -> None:
    with NatsServer(config=PASSWORD) as server:
        async with Line(server) as line:
            sent: list[bytes] = []
            line.forth = lambda data: sent.append(data) or data
            url = line.url.replace("nats:", "tls:")
            error = await refused(url, nats_user="ada", nats_password="right")
    assert isinstance(error, CertificateError)
    assert "doesn't use TLS" in str(error)
    assert b"right" not in b"".join(sent)


async def test_a_key_that_belongs_to_another_certificate_is_refused(
    nats_server: NatsServer, authority: Authority
) -> None:
    cert, _ = authority.issue("one")
    _, key = authority.issue("two")

    error = await refused(nats_server.url, tls_cert=cert, tls_key=key)

    assert isinstance(error, CertificateError)


async def test_a_server_that_says_nothing_is_waited_for(nats_server: NatsServer) -> None:
    told = Told()
    async with Line(nats_server) as line:
        line.silence()
        driver = driver_of(line.url, told, connect_timeout=0.5)
        async with asyncio.TaskGroup() as group:
            entering = group.create_task(driver.__aenter__())
            lost = await told.until(Disconnected)
            line.restore()
            await entering
            await driver.__aexit__(None, None, None)
    assert lost.problem == f"{line.url} didn't answer within 0.5 s"


async def test_the_late_answer_to_a_ping_that_was_given_up_ends_nothing(
    nats_server: NatsServer,
) -> None:
    client = PlainClient()
    async with Line(nats_server) as line:
        await client.connect(line.url, allow_reconnect=False)
        line.silence()
        with pytest.raises(nats.errors.TimeoutError):
            await client.rtt(timeout=0.05)  # type: ignore[arg-type]
        line.restore()

        assert await client.rtt(timeout=30) > 0
        await client.close()


async def test_one_server_of_several_is_enough(nats_server: NatsServer) -> None:
    urls = f"nats://127.0.0.1:{free_port()},{nats_server.url}"
    for _ in range(4):  # they are tried in random order
        async with driver_of(urls) as driver:
            assert driver.status().ready


async def test_a_cancelled_start_leaves_nothing_behind() -> None:
    driver = driver_of(f"nats://127.0.0.1:{free_port()}")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3), driver:
            raise AssertionError("there is no server")


async def test_a_driver_can_be_made_before_anything_runs() -> None:
    driver = JetStreamDriver(settings_of("nats://127.0.0.1:1"), service="mailer")

    assert driver.status().problems == ("not connected to NATS: the driver isn't entered",)
