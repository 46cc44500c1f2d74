"""Routes that say how the service is: metrics, liveness, readiness."""

from typing import TYPE_CHECKING

from eventbus.asgi.app import require_http
from eventbus.service import EventService
from eventbus.telemetry.metrics import Metrics
from eventbus.worker.health import Health

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

__all__ = ("routes",)


def routes(
    events: EventService, *, metrics: Metrics | None = None, health: Health | None = None
) -> "list[BaseRoute]":
    """Return routes for ``/metrics``, ``/livez`` and ``/readyz``; call it before the start.

    Ready is what `EventService.status` says of the data path; alive is an event loop that answers.
    Metrics and health are those of this service alone where they aren't given.

    Raises:
        ConfigurationError: Starlette isn't installed.
    """
    require_http()
    from starlette.responses import Response
    from starlette.routing import Route

    measured, asked = metrics or _metrics(events), health or _health(events)

    async def scrape(request: "Request") -> Response:
        body, content_type = measured.exposition(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type, "cache-control": "no-store"})

    async def livez(_: "Request") -> Response:
        asked.turned()
        return _probe(*asked.live())

    async def readyz(_: "Request") -> Response:
        asked.turned()
        return _probe(*asked.ready())

    return [Route("/metrics", scrape), Route("/livez", livez), Route("/readyz", readyz)]


def _metrics(events: EventService) -> Metrics:
    metrics = Metrics(lambda name: name in events.registry)
    events.observe(metrics)
    return metrics


def _health(events: EventService) -> Health:
    health = Health()
    health.add(lambda: events.status().problems)
    return health


def _probe(good: bool, problems: list[str]) -> "Response":
    from starlette.responses import JSONResponse

    content = {"status": "ok" if good else "failing", "problems": problems}
    return JSONResponse(content, 200 if good else 503, {"cache-control": "no-store"})
