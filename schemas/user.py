"""What happens to a user's account."""

from typing import Annotated, Literal

from pydantic import EmailStr, StringConstraints

from eventbus.event import Event

__all__ = ("UserCreated", "UserDeleted", "UserId", "UserLogin", "UserUpdated")

UserId = Annotated[str, StringConstraints(min_length=1, max_length=128)]
"""How every event calls a user."""


class UserCreated(Event, name="user.created", key="user_id"):
    """Somebody signed up."""

    user_id: UserId
    email: EmailStr
    name: str | None = None


class UserUpdated(Event, name="user.updated", key="user_id"):
    """A profile was changed; the fields hold what it is now."""

    user_id: UserId
    email: EmailStr
    name: str | None = None
    changed: tuple[Literal["email", "name"], ...] = ()
    """The fields that differ from before."""


class UserDeleted(Event, name="user.deleted", key="user_id"):
    """An account is gone."""

    user_id: UserId


class UserLogin(Event, name="user.login", key="user_id"):
    """A user has logged in."""

    user_id: UserId
