"""The traffic: what people and GitHub do, through the services' HTTP interfaces."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from eventbus.cli.demo.deliveries import Delivery
from eventbus.cli.demo.http import Answer, send

__all__ = ("Traffic",)

USERS = 120
VENDORS = 24
PAYMENTS = 60
ORDERS = 60
PAUSE = 0.02
"""Seconds between two requests of one kind of client."""
FLAKY = "flaky.example"
"""Its mail server refuses every mail once, so that its mails are retried."""
BOUNCING = "bounce.example"
"""Its mail server refuses every mail for good, so that its events become dead letters."""
DECLINED, CHARGED = "4000000000000002", "4242424242424242"

_Client: TypeAlias = Callable[[], Coroutine[object, object, None]]


@dataclass(slots=True)
class Traffic:
    """Clients of all services at once, each doing one thing after the other.

    Args:
        services: Where the services answer, by name.
        secret: What GitHub signs with.
        deliveries: What GitHub delivers.
    """

    services: Mapping[str, str]
    secret: str
    deliveries: Sequence[Delivery]
    requests: int = 0
    """How many were sent."""
    refused: list[str] = field(default_factory=list[str])
    """Answers that weren't the expected ones."""

    async def run(self) -> None:
        """Send everything.

        Raises:
            ExceptionGroup: A service didn't answer.
        """
        clients: Sequence[_Client] = (
            self.users,
            self.vendors,
            self.payments,
            self.orders,
            self.github,
        )
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client())

    async def users(self) -> None:
        """Sign up; some change their address, log in, leave; one can't be written to."""
        user_service = self.services["user"]
        for number in range(USERS):
            user = f"u-{number:04}"
            domain = BOUNCING if number == USERS // 2 else _domain(number, 12)
            new = {"user_id": user, "email": f"{user}@{domain}", "name": f"User {number}"}
            await self._ask(201, "POST", user_service + "/users", new)
            if number % 4 == 1:
                change = {"email": f"{user}.new@{_domain(number, 12)}"}
                await self._ask(200, "PATCH", user_service + f"/users/{user}", change)
            if number % 2 == 0:
                await self._ask(204, "POST", user_service + f"/users/{user}/login", {})
            if number % 10 == 9:
                await self._ask(204, "DELETE", user_service + f"/users/{user}", {})

    async def vendors(self) -> None:
        """Apply, and be approved or rejected; some are suspended later."""
        vendor_service = self.services["vendor"]
        for number in range(VENDORS):
            new = {"name": f"Shop {number}", "owner_email": f"owner{number}@{_domain(number, 8)}"}
            vendor = (await self._ask(201, "POST", vendor_service + "/vendors", new)).field(
                "vendor_id"
            )
            rulings = ["rejected"] if number % 3 == 2 else ["approved"]
            rulings += ["suspended"] if number % 6 == 0 else []
            for status in rulings:
                await self._ask(
                    200, "PATCH", vendor_service + f"/vendors/{vendor}", {"status": status}
                )

    async def payments(self) -> None:
        """Pay; every fourth card is declined."""
        payment_service = self.services["payment"]
        for number in range(PAYMENTS):
            declined = number % 4 == 3
            charge = {
                "email": f"payer{number}@{FLAKY if number % 8 == 3 else 'mail.example'}",
                "amount": 100 + 7 * number,
                "currency": "EUR",
                "card": DECLINED if declined else CHARGED,
            }
            await self._ask(
                402 if declined else 201, "POST", payment_service + "/payments", charge
            )

    async def orders(self) -> None:
        """Order; one product is short, and some cards are declined."""
        for number in range(ORDERS):
            popular = number % 5 == 0
            wish = {
                "product_id": "p-popular" if popular else f"p-{number % 7}",
                "quantity": 12 if popular else 1 + number % 3,
                "email": f"buyer{number}@{_domain(number, 15)}",
                "amount": 500 + 11 * number,
                "card": DECLINED if number % 6 == 2 else CHARGED,
            }
            await self._ask(202, "POST", self.services["order"] + "/orders", wish)

    async def github(self) -> None:
        """Deliver; the first one twice, as GitHub does, and one with a wrong signature."""
        for delivery in [*self.deliveries, *self.deliveries[:1]]:
            await self._deliver(202, delivery, self.secret)
        for delivery in self.deliveries[:1]:
            await self._deliver(401, delivery, f"not {self.secret}")

    async def _deliver(self, expected: int, delivery: Delivery, secret: str) -> None:
        url = self.services["webhooks"] + "/webhooks/github"
        await self._ask(expected, "POST", url, delivery.body, delivery.headers(secret))

    async def _ask(
        self,
        expected: int,
        method: str,
        url: str,
        content: object,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        answer = await send(method, url, content, headers)
        self.requests += 1
        if answer.status != expected:
            self.refused.append(f"{method} {url} answered {answer.status}, not {expected}")
        await asyncio.sleep(PAUSE)
        return answer


def _domain(number: int, every: int) -> str:
    return FLAKY if number % every == every - 1 else "mail.example"
