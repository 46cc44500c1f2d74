"""The HTTP API of vendors: apply, look up, and change the status.

Vendors live in the memory of this process and are gone with it; the events of what happened to
them aren't. Where the bus can't store an event the answer is 503 and nothing has changed.

Settings: ``EVENTBUS_HTTP_HOST`` and ``EVENTBUS_HTTP_PORT`` (0, the default, takes any free port).
"""

from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, EmailStr, Field
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from eventbus import EventService, Settings
from eventbus.asgi import CorrelationMiddleware, HttpServer, error_handlers, read_body
from schemas.vendor import VendorCreated, VendorStatus, VendorStatusChanged

__all__ = ("VendorService",)


@dataclass(frozen=True, slots=True)
class Vendor:
    """What is known of a vendor."""

    vendor_id: str
    name: str
    owner_email: str
    status: VendorStatus = "pending"


class Application(BaseModel):
    """What ``POST /vendors`` takes."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    owner_email: EmailStr


class Ruling(BaseModel):
    """What ``PATCH /vendors/{vendor_id}`` takes."""

    model_config = ConfigDict(extra="forbid")

    status: VendorStatus


class VendorService(EventService):
    """Emits what happens to vendors; listens to nothing."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__("vendor", settings=settings)
        self._vendors: dict[str, Vendor] = {}
        self.http = HttpServer(self, self._app())

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/vendors", self.apply, methods=["POST"]),
                Route("/vendors/{vendor_id}", self.look_up, methods=["GET"]),
                Route("/vendors/{vendor_id}", self.decide, methods=["PATCH"]),
            ],
            middleware=[Middleware(CorrelationMiddleware)],
            exception_handlers=error_handlers(),
        )

    async def apply(self, request: Request) -> Response:
        """Add a vendor, who is pending: 201."""
        asked = Application.model_validate_json(await read_body(request))
        vendor = Vendor(str(uuid4()), asked.name, asked.owner_email)
        await self.emit(
            VendorCreated(
                vendor_id=vendor.vendor_id, name=vendor.name, owner_email=vendor.owner_email
            )
        )
        self._vendors[vendor.vendor_id] = vendor
        return JSONResponse(asdict(vendor), HTTPStatus.CREATED)

    async def look_up(self, request: Request) -> Response:
        """Return a vendor: 200, or 404."""
        return JSONResponse(asdict(self._vendor(request)))

    async def decide(self, request: Request) -> Response:
        """Change the status: 200; nothing is emitted where it is that already."""
        asked = Ruling.model_validate_json(await read_body(request))
        before = self._vendor(request)
        after = replace(before, status=asked.status)
        if after != before:
            await self.emit(
                VendorStatusChanged(
                    vendor_id=after.vendor_id,
                    name=after.name,
                    owner_email=after.owner_email,
                    previous=before.status,
                    status=after.status,
                )
            )
            self._vendors[after.vendor_id] = after
        return JSONResponse(asdict(after))

    def _vendor(self, request: Request) -> Vendor:
        vendor = self._vendors.get(request.path_params["vendor_id"])
        if vendor is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, "no vendor has this id")
        return vendor
