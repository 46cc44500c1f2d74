"""F20: logins that are revoked, run out, lose a permission or get another secret."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from eventbus import EventService
from eventbus.embedded import NatsServer
from tests.faults.harness.history import What
from tests.faults.harness.stage import Stage
from tests.faults.harness.step import StepTaken
from tests.integration.identities import Operator, user_nkey
from tests.waiting import comes_true, eventually

pytestmark = [pytest.mark.faults, pytest.mark.nats, pytest.mark.usefixtures("_nats_binary")]

ADMIN = '{ user: "admin", password: "a" }'
AS_ADMIN = {"user": "admin", "password": "a"}
LOGIN = {"nats_user": "mailer", "nats_password": "m"}
NOTICED_WITHIN = 5.0
BACK_WITHIN = 5.0
AT_ONCE = 3.0


def users(*logins: str) -> str:
    return f"authorization {{ users = [ {ADMIN}, {', '.join(logins)} ] }}"


def mailer_may(denied: str = "nothing") -> str:
    deny = f'permissions: {{ publish: {{ deny: ["{denied}"] }} }}'
    return users(f'{{ user: "mailer", password: "m", {deny} }}')


@asynccontextmanager
async def playing(server: NatsServer, folder: Path, **login: object) -> AsyncIterator[Stage]:
    """Give a stage whose ground has a login of its own."""
    stage = Stage(server.url, folder, **login)
    yield stage
    await stage.close()


async def test_f20_a_login_that_is_revoked_for_a_while_is_no_end(tmp_path: Path) -> None:
    with NatsServer(config=mailer_may()) as server:
        async with playing(server, tmp_path, **AS_ADMIN) as stage:
            mailer = stage.service(emit_timeout=20, **LOGIN)
            stage.listen(mailer)
            async with mailer:
                async with stage.load(mailer) as load:
                    await load.more(50)
                    server.reload(users('{ user: "mailer", password: "another" }'))
                    noticed = await comes_true(lambda: isnt_ready(mailer), NOTICED_WITHIN)
                    problems = await said(mailer, "refused the credentials")
                    server.reload(mailer_may())
                    back = await timed(lambda: is_ready(mailer))
                    await load.more(50)
                await stage.calm(mailer)

            stage.took("until it is ready again", back, BACK_WITHIN)
            await stage.check()
    assert noticed, "nobody noticed that the login was revoked"
    assert problems, "readiness doesn't name the credentials"


async def test_f20_a_permission_that_is_taken_away_is_told_at_once_and_comes_back(
    tmp_path: Path,
) -> None:
    with NatsServer(config=mailer_may()) as server:
        async with playing(server, tmp_path, **AS_ADMIN) as stage:
            mailer = stage.service(**LOGIN)
            stage.listen(mailer)
            async with mailer:
                await stage.emit(mailer, StepTaken(thread="may", number=1))
                server.reload(mailer_may(denied="events.step.taken"))
                refused = await timed(lambda: is_refused(mailer, stage))
                server.reload(mailer_may())
                back = await timed(lambda: is_stored(mailer, stage))
                await stage.calm(mailer)

            stage.took("until an emit is refused", refused, AT_ONCE)
            stage.took("until emits are stored again", back, BACK_WITHIN)
            await stage.check()
    denied = stage.history.of(What.REFUSED)
    assert denied, "nothing was refused"
    assert all("NotAuthorizedError" in one.detail for one in denied)


async def test_f20_credentials_that_run_out_are_read_again_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    operator = Operator()
    admin = operator.creds(tmp_path / "admin.creds")
    with NatsServer(config=operator.config) as server:
        async with playing(server, tmp_path, user_credentials=str(admin)) as stage:
            creds = operator.creds(tmp_path / "mailer.creds", valid=6)
            mailer = stage.service(nats_creds=creds, emit_timeout=20)
            stage.listen(mailer)
            async with mailer:
                operator.creds(creds)
                async with stage.load(mailer, rate=50) as load:
                    await stage.history.until(
                        lambda: len(stage.history.of(What.CONNECTED)) == 2,
                        "it connects again, with the new credentials",
                        10,
                    )
                    await load.more(20)
                await stage.calm(mailer)

            stage.took("without an emit", stage.history.longest_gap(), BACK_WITHIN)
            await stage.check()


async def test_f20_a_key_that_is_replaced_is_read_again_without_a_restart(
    tmp_path: Path,
) -> None:
    (old, old_public), (new, new_public) = user_nkey(), user_nkey()
    seed = tmp_path / "mailer.nk"
    seed.write_text(old)
    with NatsServer(config=users(f"{{ nkey: {old_public} }}")) as server:
        async with playing(server, tmp_path, **AS_ADMIN) as stage:
            mailer = stage.service(nats_nkey_seed=str(seed), emit_timeout=20)
            stage.listen(mailer)
            async with mailer:
                async with stage.load(mailer) as load:
                    await load.more(50)
                    seed.write_text(new)
                    server.reload(users(f"{{ nkey: {new_public} }}"))
                    await load.more(100)
                await stage.calm(mailer)

            stage.took("without an emit", stage.history.longest_gap(), BACK_WITHIN)
            await stage.check()


async def isnt_ready(events: EventService) -> bool:
    return not events.status().ready


async def is_ready(events: EventService) -> bool:
    return events.status().ready


async def said(events: EventService, words: str) -> bool:
    async def is_said() -> bool:
        return any(words in problem for problem in events.status().problems)

    return await comes_true(is_said)


async def timed(condition: Callable[[], object]) -> float:
    """Return how long it takes until something is so."""
    began = time.monotonic()
    await eventually(condition, 15)  # type: ignore[arg-type]
    return time.monotonic() - began


_numbers = iter(range(1, 100_000))


async def is_stored(events: EventService, stage: Stage) -> bool:
    try:
        await stage.witness.emit(events, StepTaken(thread="try", number=next(_numbers)))
    except Exception:  # noqa: BLE001 - the history tells which
        return False
    return True


async def is_refused(events: EventService, stage: Stage) -> bool:
    await asyncio.sleep(0)
    return not await is_stored(events, stage)
