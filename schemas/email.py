"""What happens to the mails we send."""

from pydantic import EmailStr

from eventbus.event import Event

__all__ = ("EmailSent",)


class EmailSent(Event, name="email.sent"):
    """A mail was handed to the mail system."""

    to: EmailStr
    template: str
    """Which mail it is, like ``welcome``."""
    subject: str
    message_id: str
    """The mail's ``Message-ID``."""
