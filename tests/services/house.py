"""The services of one test: all in this process, on one server, and what can be seen of them."""

import asyncio
import json
import mailbox
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

import httpx

from eventbus import EventService
from eventbus.delivery import Outcome
from eventbus.settings import Settings
from eventbus.telemetry.signals import Happened, Settled
from services.audit.listeners import AuditService, AuditSettings
from services.inventory.listeners import InventoryService, InventorySettings
from services.notification.listeners import NotificationService, NotificationSettings
from services.order.app import OrderService
from services.payment.app import PaymentService, PaymentSettings
from services.triage.listeners import TriageService
from services.user.app import UserService
from services.vendor.app import VendorService
from services.webhooks.app import WebhooksService, WebhooksSettings, signature

SECRET = "the secret of these tests"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the audit table."""

    id: str
    name: str
    version: int
    source: str
    key: str | None
    correlation_id: str
    causation_id: str | None
    time: str
    stream: str
    sequence: int
    data: str

    @property
    def payload(self) -> object:
        return json.loads(self.data)


class Watch:
    """Remembers how deliveries ended, and waits for what should come."""

    def __init__(self, *services: EventService) -> None:
        self.settled: list[Settled] = []
        self._more = asyncio.Event()
        for service in services:
            service.observe(self)

    def __call__(self, happened: Happened) -> None:
        if isinstance(happened, Settled):
            self.settled.append(happened)
            self._more.set()

    def ended(self, outcome: Outcome, listener: str = "") -> list[Settled]:
        return [
            one
            for one in self.settled
            if one.outcome is outcome and listener in ("", one.listener)
        ]

    async def until(self, condition: Callable[[], bool], seconds: float = 90) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self._more.clear()
                await self._more.wait()


class House:
    """Makes services that share a server and a folder."""

    def __init__(self, settings: Settings, folder: Path, **common: object) -> None:
        self._common = {**settings.model_dump(exclude_unset=True), "grace": 5, **common}
        self._folder = folder
        self.maildir = folder / "mail"
        self.database = folder / "audit" / "audit.sqlite3"
        self.user = UserService(Settings(**self._common))
        self.vendor = VendorService(Settings(**self._common))
        self.order = OrderService(Settings(**self._common))
        self.inventory = InventoryService(InventorySettings(**self._common, opening_stock=10))
        self.payment = self.another_payment()
        self.webhooks = WebhooksService(WebhooksSettings(**self._common, webhook_secret=SECRET))
        self.triage = TriageService(Settings(**self._common))
        self.notification = self.another_notification()
        self.audit = AuditService(AuditSettings(**self._common, audit_database=self.database))

    def another_payment(self, **settings: object) -> PaymentService:
        """Make another process of the payment service; its statements come in years, if ever."""
        given = {"store_url": self.store("payment"), "statement_every": 1e9, **settings}
        return PaymentService(PaymentSettings(**self._common, **given))

    def another_notification(self, **settings: object) -> NotificationService:
        """Make another process of the notification service."""
        given = {"store_url": self.store("notification"), "maildir": self.maildir, **settings}
        return NotificationService(NotificationSettings(**self._common, **given))

    def store(self, service: str) -> str:
        """Return the URL of a service's database."""
        return f"sqlite+aiosqlite:///{self.store_file(service)}"

    def store_file(self, service: str) -> Path:
        """Return the file of a service's database."""
        return self._folder / "stores" / f"{service}.sqlite3"

    def table(self, service: str, columns: str) -> list[tuple[Any, ...]]:
        """Return columns of a table in a service's database, as ``a, b FROM c``."""
        with closing(sqlite3.connect(self.store_file(service))) as database:
            return list(database.execute(f"SELECT {columns}"))

    def mails(self) -> list[Message]:
        return sorted(mailbox.Maildir(self.maildir, create=False), key=lambda one: one["Date"])

    def rows(self, where: str = "true", *values: object) -> list[Row]:
        query = f"SELECT * FROM events WHERE {where} ORDER BY sequence"
        with closing(sqlite3.connect(self.database)) as database:
            return [Row(*row) for row in database.execute(query, values)]


@asynccontextmanager
async def running(*services: EventService) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for service in services:
            await stack.enter_async_context(service)
        yield


@asynccontextmanager
async def api(
    service: UserService | VendorService | OrderService | PaymentService | WebhooksService,
) -> AsyncIterator[httpx.AsyncClient]:
    """Run a service and call its HTTP interface, as anybody would."""
    async with service:
        await service.http.started()
        async with httpx.AsyncClient(base_url=service.http.url, timeout=20) as client:
            yield client


async def deliver(
    client: httpx.AsyncClient,
    kind: str,
    body: object,
    *,
    id: str = "d-1",
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    """POST a delivery as GitHub does; bytes go as they are."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {
        "Content-Type": "application/json",
        "X-GitHub-Event": kind,
        "X-GitHub-Delivery": id,
        "X-Hub-Signature-256": signature(SECRET.encode(), content),
        **(headers or {}),
    }
    return await client.post(
        "/webhooks/github",
        content=content,
        headers={name: value for name, value in sent.items() if value},
    )


def names(rows: Sequence[Row]) -> list[str]:
    return sorted(row.name for row in rows)
