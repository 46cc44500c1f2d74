"""Writes to people about their account, their vendor, their orders and their payments.

Each mail is emitted as ``email.sent`` once it is delivered. A mail that is refused for good makes
its event a dead letter at once; anything else is tried again. `MailGateway` says which domains
behave badly here, on purpose.

Each mail has a row in the table of sent mails. The row, ``email.sent`` and the mark that the event
is handled are stored in one transaction, so each is there once, also where a process is killed
with the mail just out. The gateway has the event's id, and sends no mail twice.

Settings: ``EVENTBUS_MAILDIR``, the folder of the mails (``.eventbus/maildir``),
``EVENTBUS_STORE_URL``, the database (``sqlite+aiosqlite:///.eventbus/notification.sqlite3``), and
``EVENTBUS_FOLLOW_UP_AFTER``, when the buyer of an order is asked about it (3 days).
"""

from pathlib import Path

from typing_extensions import override

from eventbus import Context, Discard, EventService, Retry, Settings
from schemas.email import EmailSent
from schemas.order import FollowUpDue, OrderCreated
from schemas.payment import PaymentCompleted, PaymentFailed
from schemas.stock import StockRefused
from schemas.user import UserCreated, UserUpdated
from schemas.vendor import VendorStatusChanged
from services.notification.mails import Mail, MailGateway, MailRefusedError
from services.notification.sent import Sent, record

__all__ = ("NotificationService", "NotificationSettings")

MAIL = Retry(attempts=5, start=1, cap=300).never(MailRefusedError)
"""For a mail that can wait."""
URGENT_MAIL = Retry(attempts=8, start=0.5, cap=60).never(MailRefusedError)
"""For a mail about money."""
LEASE = 3
"""Seconds without a sign of life after which such a mail is another process's to send."""


class NotificationSettings(Settings):
    """Settings of the notification service, beside those of every service."""

    store_url: str = "sqlite+aiosqlite:///.eventbus/notification.sqlite3"
    """The database of sent mails, inbox and outbox; what is missing of it is made."""
    maildir: Path = Path(".eventbus/maildir")
    """The folder of the mails; made where it is missing."""
    follow_up_after: float = 3 * 86400
    """Seconds from the payment of an order until its buyer is asked how they like it."""


class NotificationService(EventService):
    """Sends mails, and emits ``email.sent`` for each."""

    def __init__(self, settings: NotificationSettings | None = None) -> None:
        super().__init__("notification")
        self._given = settings
        self._gateway = MailGateway()
        self.resource(Sent(lambda: self.settings.store_url))
        self._follow_up_after = 0.0
        self.subscribe(UserCreated, self.welcome, retry=MAIL, inbox=True)
        self.subscribe(UserUpdated, self.profile_changed, retry=MAIL, inbox=True)
        self.subscribe(VendorStatusChanged, self.vendor_approved, retry=MAIL, inbox=True)
        self.subscribe(
            PaymentFailed, self.payment_failed, retry=URGENT_MAIL, ack_wait=LEASE, inbox=True
        )
        self.subscribe(OrderCreated, self.order_received, retry=MAIL, inbox=True)
        self.subscribe(StockRefused, self.sold_out, retry=MAIL, inbox=True)
        self.subscribe(PaymentCompleted, self.plan_follow_up)
        self.subscribe(FollowUpDue, self.follow_up, retry=MAIL, inbox=True)

    @property
    @override
    def settings(self) -> NotificationSettings:
        """The settings it was given, else those of the environment."""
        if self._given is None:
            self._given = NotificationSettings.load()
        return self._given

    @override
    async def start(self) -> None:
        self._follow_up_after = self.settings.follow_up_after
        await self._gateway.open(self.settings.maildir)
        await super().start()

    async def welcome(self, event: UserCreated, context: Context) -> None:
        """Welcome a new user."""
        text = f"Hello {event.name or event.email},\n\nyour account is ready.\n"
        await self._send(Mail(event.email, "welcome", "Welcome", text), context)

    async def profile_changed(self, event: UserUpdated, context: Context) -> None:
        """Tell a user what was changed, in case it was somebody else."""
        what = " and ".join(event.changed) or "profile"
        text = f"Hello {event.name or event.email},\n\nyour {what} was changed.\n"
        subject = "Your profile was changed"
        await self._send(Mail(event.email, "profile_changed", subject, text), context)

    async def vendor_approved(self, event: VendorStatusChanged, context: Context) -> None:
        """Tell the owner of a vendor that it may sell; other changes need no mail."""
        if event.status != "approved":
            return
        text = f"Hello,\n\n{event.name} is approved and may sell from now on.\n"
        subject = "Your vendor account is approved"
        await self._send(Mail(event.owner_email, "vendor_approved", subject, text), context)

    async def payment_failed(self, event: PaymentFailed, context: Context) -> None:
        """Tell the payer that no money was taken, and why."""
        text = f"Hello,\n\nyour payment {event.payment_id} failed: {event.reason}.\n"
        subject = "Your payment failed"
        await self._send(Mail(event.email, "payment_failed", subject, text), context)

    async def order_received(self, event: OrderCreated, context: Context) -> None:
        """Confirm an order to whom it is from."""
        text = f"Hello,\n\nwe have your order of {event.quantity} x {event.product_id}.\n"
        await self._send(Mail(event.email, "order_received", "We have your order", text), context)

    async def sold_out(self, event: StockRefused, context: Context) -> None:
        """Tell somebody that there isn't enough of what they ordered."""
        text = f"Hello,\n\nthere are only {event.left} x {event.product_id} left.\n"
        await self._send(Mail(event.email, "sold_out", "Sold out", text), context)

    async def plan_follow_up(self, event: PaymentCompleted, context: Context) -> None:
        """Have the server remind us of an order that is paid; no process has to live until then."""
        if event.order_id is None:
            raise Discard("the payment belongs to no order")
        due = FollowUpDue(order_id=event.order_id, email=event.email)
        id = f"follow-up-{event.order_id}"  # with which it could be cancelled
        await context.emit(due, id=id, delay=self._follow_up_after)

    async def follow_up(self, event: FollowUpDue, context: Context) -> None:
        """Ask a buyer how they like it."""
        text = f"Hello,\n\nhow do you like what you ordered ({event.order_id})?\n"
        await self._send(Mail(event.email, "follow_up", "How do you like it?", text), context)

    async def _send(self, mail: Mail, context: Context) -> None:
        message_id = await self._gateway.deliver(mail, context)
        await record(context.session, mail, context.id, message_id)
        await context.emit(
            EmailSent(
                to=mail.to, template=mail.template, subject=mail.subject, message_id=message_id
            )
        )
