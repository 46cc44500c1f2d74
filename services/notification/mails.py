"""`MailGateway`: delivers mails, each once, into a maildir."""

import asyncio
import hashlib
import mailbox
import os
import tempfile
from dataclasses import dataclass
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path

from eventbus import Context
from eventbus.errors import SettingsError

__all__ = ("Mail", "MailGateway", "MailRefusedError", "TryAgainError")

SENDER = "Eventbus <no-reply@eventbus.example>"
FLAKY = "flaky.example"
SLOW = "slow.example"
BOUNCING = "bounce.example"
SLOWNESS = 1.0

_POLICY = policy.default.clone(utf8=True)


class TryAgainError(Exception):
    """The mail isn't accepted now; it may be later (SMTP 4xx)."""


class MailRefusedError(Exception):
    """The mail will never be accepted (SMTP 5xx)."""


@dataclass(frozen=True, slots=True)
class Mail:
    """What somebody is told."""

    to: str
    template: str
    """Which mail it is, like ``welcome``."""
    subject: str
    text: str


class MailGateway:
    """Delivers into a maildir (``tmp``, ``new``, ``cur``), which any mail reader opens.

    There is no mail server behind it, so three domains behave like troublesome ones:

    - ``flaky.example`` greylists: it refuses the first attempt of every mail with
      `TryAgainError`, and accepts the second.
    - ``slow.example`` answers a second after it has taken a mail.
    - ``bounce.example`` knows nobody: every attempt ends in `MailRefusedError`.
    """

    def __init__(self) -> None:
        self._maildir: Path | None = None

    async def open(self, maildir: Path) -> None:
        """Make the maildir where it is missing.

        Raises:
            SettingsError: It can't be made there.
        """
        try:
            await asyncio.to_thread(_make, maildir)
        except OSError as exc:
            raise SettingsError(
                f"EVENTBUS_MAILDIR={maildir}: can't make a maildir there ({exc}); "
                "set it to a folder that can be written"
            ) from exc
        self._maildir = maildir

    async def deliver(self, mail: Mail, context: Context) -> str:
        """Deliver the one mail of an event; return its ``Message-ID`` once it is on disk.

        Doing it again for the same event changes nothing.

        Raises:
            TryAgainError: Not now.
            MailRefusedError: Never.
        """
        assert self._maildir is not None, "the gateway isn't open"
        domain = mail.to.rpartition("@")[2].lower()
        if domain == FLAKY and context.attempt == 1:
            raise TryAgainError(f"{FLAKY} says: 451 greylisted, try again later")
        if domain == BOUNCING:
            raise MailRefusedError(f"{BOUNCING} says: 550 no such mailbox")
        # An id may hold what the name of a file or a Message-ID can't.
        name = hashlib.sha256(context.id.encode()).hexdigest()[:32]
        message_id = f"<{name}@eventbus.example>"
        content = _composed(mail, message_id, context).as_bytes()
        await asyncio.to_thread(_write, self._maildir, f"{name}.eventbus", content)
        if domain == SLOW:
            await asyncio.sleep(SLOWNESS)
        return message_id


def _composed(mail: Mail, message_id: str, context: Context) -> EmailMessage:
    composed = EmailMessage(_POLICY)
    composed["From"] = SENDER
    composed["To"] = mail.to
    composed["Subject"] = mail.subject
    composed["Date"] = format_datetime(context.time)
    composed["Message-ID"] = message_id
    composed["X-Event-ID"] = context.id
    composed["X-Correlation-ID"] = context.correlation_id
    composed.set_content(mail.text)
    return composed


def _make(maildir: Path) -> None:
    maildir.parent.mkdir(parents=True, exist_ok=True)
    mailbox.Maildir(maildir, create=True).close()


def _write(maildir: Path, name: str, content: bytes) -> None:
    if any((maildir / "cur").glob(f"{name}:*")):
        return  # delivered, and read since
    handle, temporary = tempfile.mkstemp(dir=maildir / "tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename, it fails where the mail is there already.
        os.link(temporary, maildir / "new" / name)
    except FileExistsError:
        return
    finally:
        os.unlink(temporary)
