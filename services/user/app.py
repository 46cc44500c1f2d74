"""The HTTP API of accounts: sign up, look up, change, log in, delete.

Accounts live in the memory of this process and are gone with it; the events of what happened to
them aren't. An event is stored before its change can be seen, so a change without an event
doesn't exist: where the bus can't store it, the answer is 503 and nothing has changed.

Settings: ``EVENTBUS_HTTP_HOST`` and ``EVENTBUS_HTTP_PORT`` (0, the default, takes any free port).
"""

from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Annotated, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, EmailStr, StringConstraints
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from eventbus import EventService, Settings
from eventbus.asgi import CorrelationMiddleware, HttpServer, error_handlers, read_body
from schemas.user import UserCreated, UserDeleted, UserLogin, UserUpdated

__all__ = ("UserService",)

_Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
"""An id that can stand in a path."""


@dataclass(frozen=True, slots=True)
class Account:
    """What is known of a user."""

    user_id: str
    email: str
    name: str | None


class SignUp(BaseModel):
    """What ``POST /users`` takes; a user without an id is given one."""

    model_config = ConfigDict(extra="forbid")

    user_id: _Id | None = None
    email: EmailStr
    name: str | None = None


class Change(BaseModel):
    """What ``PATCH /users/{user_id}`` takes; a field that isn't there stays as it is."""

    model_config = ConfigDict(extra="forbid")

    email: EmailStr = ""
    name: str | None = None


class UserService(EventService):
    """Emits what happens to accounts; listens to nothing."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__("user", settings=settings)
        self._accounts: dict[str, Account] = {}
        self.http = HttpServer(self, self._app())

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/users", self.sign_up, methods=["POST"]),
                Route("/users/{user_id}", self.look_up, methods=["GET"]),
                Route("/users/{user_id}", self.change, methods=["PATCH"]),
                Route("/users/{user_id}", self.delete, methods=["DELETE"]),
                Route("/users/{user_id}/login", self.log_in, methods=["POST"]),
            ],
            middleware=[Middleware(CorrelationMiddleware)],
            exception_handlers=error_handlers(),
        )

    async def sign_up(self, request: Request) -> Response:
        """Create an account: 201, or 409 where the id is taken."""
        asked = SignUp.model_validate_json(await read_body(request))
        account = Account(asked.user_id or str(uuid4()), asked.email, asked.name)
        if account.user_id in self._accounts:
            raise HTTPException(HTTPStatus.CONFLICT, "this user_id is taken")
        # Kept for it from here on: another request may ask for the same id while this one emits.
        self._accounts[account.user_id] = account
        try:
            await self.emit(
                UserCreated(user_id=account.user_id, email=account.email, name=account.name)
            )
        except Exception:
            del self._accounts[account.user_id]
            raise
        return _shown(account, HTTPStatus.CREATED)

    async def look_up(self, request: Request) -> Response:
        """Return an account: 200, or 404."""
        return _shown(self._account(request))

    async def change(self, request: Request) -> Response:
        """Change an account: 200; nothing is emitted where nothing differs."""
        asked = Change.model_validate_json(await read_body(request))
        before = self._account(request)
        after = replace(before, **asked.model_dump(include=asked.model_fields_set))
        changed = _changed(before, after)
        if changed:
            await self.emit(
                UserUpdated(
                    user_id=after.user_id, email=after.email, name=after.name, changed=changed
                )
            )
            self._accounts[after.user_id] = after
        return _shown(after)

    async def delete(self, request: Request) -> Response:
        """Delete an account: 204."""
        account = self._account(request)
        await self.emit(UserDeleted(user_id=account.user_id))
        self._accounts.pop(account.user_id, None)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def log_in(self, request: Request) -> Response:
        """Note that a user has logged in: 204."""
        account = self._account(request)
        await self.emit(UserLogin(user_id=account.user_id))
        return Response(status_code=HTTPStatus.NO_CONTENT)

    def _account(self, request: Request) -> Account:
        account = self._accounts.get(request.path_params["user_id"])
        if account is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, "no user has this id")
        return account


def _changed(before: Account, after: Account) -> tuple[Literal["email", "name"], ...]:
    email: tuple[Literal["email"], ...] = () if before.email == after.email else ("email",)
    name: tuple[Literal["name"], ...] = () if before.name == after.name else ("name",)
    return (*email, *name)


def _shown(account: Account, status: HTTPStatus = HTTPStatus.OK) -> Response:
    content = {"user_id": account.user_id, "email": account.email, "name": account.name}
    return JSONResponse(content, status)
