"""F21: certificates that aren't ours, ran out, or are replaced."""

import asyncio
import shutil
import time
from pathlib import Path

import pytest

from eventbus import EventService
from eventbus.embedded import NatsServer
from eventbus.errors import CertificateError
from tests.faults.harness.history import What
from tests.faults.harness.pace import pace
from tests.faults.harness.stage import Stage
from tests.integration.identities import Authority
from tests.waiting import comes_true

pytestmark = [pytest.mark.faults, pytest.mark.nats, pytest.mark.usefixtures("_nats_binary")]

REFUSED_WITHIN = 5.0
BACK_WITHIN = 5.0


class Trust:
    """An authority, what it issued to a server and a client, and a server that asks for both."""

    def __init__(self, folder: Path, *, days: float = 1) -> None:
        self.folder = folder
        self.authority = Authority(folder / "ours")
        self.certificate, self.key = self.authority.issue("client", days=days)
        server, key = self.authority.issue("server")
        self.server = NatsServer(
            config=f'tls {{ cert_file: "{server}", key_file: "{key}", '
            f'ca_file: "{self.authority.path}", verify: true, timeout: 10 }}'
        )

    def settings(self, **others: object) -> dict[str, object]:
        """Return what a service has to be told."""
        given = {"ca": self.authority.path, "cert": self.certificate, "key": self.key, **others}
        return {f"tls_{name}": value for name, value in given.items()}


@pytest.mark.parametrize("fault", ["expired", "wrong authority"])
async def test_f21_a_certificate_that_doesnt_fit_is_refused_at_once(
    tmp_path: Path, fault: str
) -> None:
    trust = Trust(tmp_path, days=-1 if fault == "expired" else 1)
    other = Authority(tmp_path / "theirs")
    ca = trust.authority.path if fault == "expired" else other.path
    with trust.server as server:
        stage = Stage(server.url, tmp_path)
        mailer = stage.service(**trust.settings(ca=ca))
        began = time.monotonic()
        refused = await refusal(mailer)
        took = time.monotonic() - began

    assert took < REFUSED_WITHIN * pace()
    assert isinstance(refused, CertificateError)


async def test_f21_a_certificate_that_runs_out_is_replaced_without_a_restart(
    tmp_path: Path,
) -> None:
    trust = Trust(tmp_path)
    expired = trust.authority.issue("expired", days=-1)
    fresh = [shutil.copy(one, tmp_path) for one in (trust.certificate, trust.key)]
    with trust.server as server:
        stage = Stage(server.url, tmp_path, tls=_context(trust))
        mailer = stage.service(emit_timeout=25, **trust.settings())
        stage.listen(mailer)
        async with mailer:
            async with stage.load(mailer) as load:
                await load.more(50)
                replace(trust, *expired)
                server.kill()
                await asyncio.to_thread(server.restart)
                said = await comes_true(lambda: says(mailer, "TLS"))
                replace(trust, *(Path(one) for one in fresh))
                began = time.monotonic()
                await load.more(50)
                back = time.monotonic() - began
            await stage.calm(mailer)

        stage.took("until emits are stored again", back, BACK_WITHIN)
        await stage.check()
    assert said, "readiness doesn't name TLS"
    assert len(stage.history.of(What.CONNECTED)) == 2


def replace(trust: Trust, certificate: Path, key: Path) -> None:
    """Put other files where the service looks for its own."""
    shutil.copy(certificate, trust.certificate)
    shutil.copy(key, trust.key)


def _context(trust: Trust) -> object:
    import ssl

    context = ssl.create_default_context(cafile=str(trust.authority.path))
    context.load_cert_chain(trust.certificate, trust.key)
    return context


async def refusal(events: EventService) -> Exception | None:
    """Return what a start raises; None where it didn't end."""
    try:
        async with asyncio.timeout(2 * REFUSED_WITHIN * pace()):
            await events.start()
    except Exception as exc:  # noqa: BLE001 - its kind is looked at last
        return exc
    await events.stop()
    return None


async def says(events: EventService, word: str) -> bool:
    return any(word in problem for problem in events.status().problems)
