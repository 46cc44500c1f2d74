"""Web applications and the bus: context, lifespan, probes, answers, and the server of a service."""

import asyncio
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from eventbus import Context, Event, EventService
from eventbus.asgi import (
    CorrelationMiddleware,
    HttpServer,
    error_handlers,
    lifespan,
    read_body,
    routes,
)
from eventbus.embedded import NatsServer
from eventbus.errors import BackpressureError, ConfigurationError, EmitUnknown, SettingsError
from eventbus.settings import Settings
from tests.waiting import eventually

pytestmark = pytest.mark.nats

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "web.md"


class ThingMade(Event, name="thing.made"):
    thing: str


class Bench:
    """A service that emits what it is asked for, and hears it."""

    def __init__(self, settings: Settings) -> None:
        self.events = EventService("bench", settings=settings)
        self.heard: asyncio.Queue[Context] = asyncio.Queue()
        self.events.subscribe(ThingMade, self.hear)
        self.app = Starlette(
            routes=[
                Route("/things", self.make, methods=["POST"]),
                Route("/error", self.fail),
                *routes(self.events),
            ],
            lifespan=lifespan(self.events),
            middleware=[Middleware(CorrelationMiddleware)],
            exception_handlers=error_handlers(),
        )
        self.error: Exception | None = None

    async def hear(self, event: ThingMade, context: Context) -> None:
        self.heard.put_nowait(context)

    async def make(self, request: Request) -> Response:
        body = await read_body(request, 1000)
        receipt = await self.events.emit(ThingMade.model_validate_json(body))
        return JSONResponse({"id": receipt.id})

    async def fail(self, request: Request) -> Response:
        assert self.error is not None
        raise self.error


@asynccontextmanager
async def client_of(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://app") as client,
    ):
        yield client


@pytest.fixture
def settings(nats_server: NatsServer) -> Settings:
    return Settings(nats_url=nats_server.url)


@pytest.fixture
def bench(settings: Settings) -> Bench:
    return Bench(settings)


@pytest.fixture
async def client(bench: Bench) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(bench.app) as client:
        yield client


async def test_what_a_request_emits_carries_its_correlation_id_and_its_trace(
    bench: Bench, client: httpx.AsyncClient
) -> None:
    given = {
        "X-Correlation-ID": "story-1",
        "traceparent": TRACEPARENT,
        "tracestate": "vendor=1",
        "baggage": "tenant=a",
    }

    answer = await client.post("/things", json={"thing": "cup"}, headers=given)

    heard = await bench.heard.get()
    assert answer.headers["x-correlation-id"] == "story-1"
    assert (heard.id, heard.correlation_id) == (answer.json()["id"], "story-1")
    assert heard.trace == {
        "traceparent": TRACEPARENT,
        "tracestate": "vendor=1",
        "baggage": "tenant=a",
    }


@pytest.mark.parametrize("given", [None, "", "two words", "x" * 129, "a,b c", "sch\xf6n"])
async def test_a_request_without_a_usable_correlation_id_gets_a_new_one(
    bench: Bench, client: httpx.AsyncClient, given: str | None
) -> None:
    headers = {} if given is None else {b"X-Correlation-ID": given.encode("latin-1")}

    answer = await client.post("/things", json={"thing": "cup"}, headers=headers)

    heard = await bench.heard.get()
    assert heard.correlation_id == answer.headers["x-correlation-id"]
    assert re.fullmatch(r"[0-9a-f-]{36}", heard.correlation_id)


@pytest.mark.parametrize("traceparent", ["nonsense", TRACEPARENT + "-more", TRACEPARENT.upper()])
async def test_a_trace_that_isnt_one_is_left_behind(
    bench: Bench, client: httpx.AsyncClient, traceparent: str
) -> None:
    headers = {"traceparent": traceparent, "tracestate": "vendor=1", "baggage": "b" * 8193}

    await client.post("/things", json={"thing": "cup"}, headers=headers)

    assert (await bench.heard.get()).trace == {}


async def test_requests_side_by_side_keep_their_own_context(
    bench: Bench, client: httpx.AsyncClient
) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(20):
            thing, headers = {"thing": str(number)}, {"X-Correlation-ID": f"story-{number}"}
            group.create_task(client.post("/things", json=thing, headers=headers))

    heard = [await bench.heard.get() for _ in range(20)]
    assert {(one.event.thing, one.correlation_id) for one in heard} == {  # type: ignore[attr-defined]
        (str(number), f"story-{number}") for number in range(20)
    }


async def test_an_answer_that_names_a_correlation_id_itself_keeps_it(settings: Settings) -> None:
    async def named(request: Request) -> Response:
        return PlainTextResponse("ok", headers={"X-Correlation-ID": "mine"})

    app = Starlette(routes=[Route("/", named)], middleware=[Middleware(CorrelationMiddleware)])

    async with client_of(app) as client:
        answer = await client.get("/", headers={"X-Correlation-ID": "theirs"})

    assert answer.headers.get_list("x-correlation-id") == ["mine"]


async def test_ready_follows_the_data_path_and_alive_doesnt(
    nats_server: NatsServer, client: httpx.AsyncClient
) -> None:
    async def answers(path: str, status: int) -> bool:
        return (await client.get(path)).status_code == status

    await eventually(lambda: answers("/readyz", 200))
    nats_server.kill()
    await eventually(lambda: answers("/readyz", 503))
    alive = await client.get("/livez")
    problems = (await client.get("/readyz")).json()["problems"]
    nats_server.restart()
    await eventually(lambda: answers("/readyz", 200))

    assert (alive.status_code, alive.json()) == (200, {"status": "ok", "problems": []})
    assert problems != []


async def test_the_metrics_count_what_the_application_did(
    bench: Bench, client: httpx.AsyncClient
) -> None:
    await client.post("/things", json={"thing": "cup"})
    await bench.heard.get()

    async def counted() -> bool:
        line = 'eventbus_processed_total{event="thing.made",listener="hear",outcome="ok"} 1.0'
        return line in (await client.get("/metrics")).text

    await eventually(counted)
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'eventbus_emitted_total{driver="jetstream",event="thing.made",outcome="ok"} 1.0' in (
        answer.text
    )


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (b"{", 400, {"error": "request.json", "detail": "the body isn't JSON"}),
        (
            b'{"thing": 1, "more": "secret"}',
            422,
            {
                "error": "request.invalid",
                "detail": "the body doesn't fit",
                "problems": [
                    {"field": "thing", "message": "Input should be a valid string"},
                    {"field": "more", "message": "Extra inputs are not permitted"},
                ],
            },
        ),
        (b"x" * 1001, 413, {"error": "http.413", "detail": "the body is over 1000 bytes"}),
    ],
)
async def test_a_body_that_doesnt_fit_is_explained(
    client: httpx.AsyncClient, body: bytes, status: int, expected: dict[str, object]
) -> None:
    answer = await client.post("/things", content=body)

    assert (answer.status_code, answer.json()) == (status, expected)


async def test_a_body_without_a_declared_length_is_cut_off_at_the_limit(
    client: httpx.AsyncClient,
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 100
            yield b"x" * 100

    answer = await client.post("/things", content=endless())

    assert answer.status_code == 413
    assert sent <= 1200


async def test_a_body_that_says_it_is_too_long_isnt_read_at_all() -> None:
    async def receive() -> dict[str, object]:
        pytest.fail("read a body that is too long")

    scope = {"type": "http", "headers": [(b"content-length", b"1001")]}

    with pytest.raises(HTTPException) as caught:
        await read_body(Request(scope, receive), 1000)

    assert caught.value.status_code == 413


@pytest.mark.parametrize(
    "error",
    [
        EmitUnknown(name="thing.made", id="1", after=15, tries=3),
        BackpressureError(stream="EVENTS", problem="full", held_by=["audit__record"]),
    ],
)
async def test_a_bus_that_cant_store_is_a_503_that_says_when_to_come_back(
    bench: Bench, client: httpx.AsyncClient, error: Exception
) -> None:
    bench.error = error

    answer = await client.get("/error")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json() == {
        "error": error.code,  # type: ignore[attr-defined]
        "detail": "the event bus can't store this now; try again later",
    }


async def test_a_path_that_isnt_there_is_answered_in_json(client: httpx.AsyncClient) -> None:
    answer = await client.get("/nowhere")

    assert (answer.status_code, answer.json()) == (
        404,
        {"error": "http.404", "detail": "Not Found"},
    )


async def hello(request: Request) -> Response:
    return PlainTextResponse("hello")


async def test_a_service_serves_while_it_runs_and_says_where(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    events = EventService("web", settings=settings)
    http = HttpServer(events, Starlette(routes=[Route("/", hello)]))
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]

    async with events, httpx.AsyncClient() as client:
        await http.started()
        url = http.url
        answer = await client.get(url)
        during = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]

    assert answer.text == "hello"
    assert capfd.readouterr().out == f"web http {url}\n"
    assert during == before
    with (
        pytest.raises(ConnectionRefusedError),
        socket.create_connection(("127.0.0.1", _port(url))),
    ):
        pass
    with pytest.raises(RuntimeError, match="doesn't listen"):
        _ = http.port


async def test_a_service_that_starts_again_serves_again(settings: Settings) -> None:
    events = EventService("web", settings=settings)
    http = HttpServer(events, Starlette(routes=[Route("/", hello)]))
    answers = []

    async with httpx.AsyncClient() as client:
        for _ in range(2):
            async with events:
                await http.started()
                answers.append((await client.get(http.url)).text)

    assert answers == ["hello", "hello"]


async def test_a_stop_lets_a_running_request_finish_and_its_emit_succeed(
    settings: Settings,
) -> None:
    events = EventService("web", settings=settings)
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        entered.set()
        await go_on.wait()
        receipt = await events.emit(ThingMade(thing="late"))
        return PlainTextResponse(receipt.stream)

    http = HttpServer(events, Starlette(routes=[Route("/", slow)]))
    await events.start()
    await http.started()
    url = http.url

    async with asyncio.TaskGroup() as group, httpx.AsyncClient() as client:
        request = group.create_task(client.get(url))
        await entered.wait()
        stopping = group.create_task(events.stop())
        await eventually(lambda: _refuses(url))
        go_on.set()
        answer = await request
        await stopping

    assert (answer.status_code, answer.text) == (200, "EVENTS")


async def test_a_port_that_is_taken_is_a_clear_error(nats_server: NatsServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        events = EventService("web", settings=Settings(nats_url=nats_server.url, http_port=port))
        http = HttpServer(events, Starlette())

        with pytest.raises((SettingsError, ExceptionGroup)) as ended:
            await events.run()
        with pytest.raises(SettingsError) as caught:
            await http.started()
    async with events:
        await http.started()
        listened = http.port

    assert f"service 'web' can't listen on 127.0.0.1:{port}" in str(caught.value)
    assert "EVENTBUS_HTTP_PORT" in str(caught.value)
    assert _causes(ended.value) == [caught.value]
    assert listened == port


async def test_an_application_whose_lifespan_fails_ends_the_service(settings: Settings) -> None:
    @asynccontextmanager
    async def broken(app: Starlette) -> AsyncIterator[None]:
        raise RuntimeError("no database")
        yield

    events = EventService("web", settings=settings)
    http = HttpServer(events, Starlette(lifespan=broken))

    with pytest.raises((ConfigurationError, ExceptionGroup)) as ended:
        await events.run()

    assert [type(one) for one in _causes(ended.value)] == [ConfigurationError]
    with pytest.raises(ConfigurationError, match="lifespan failed"):
        await http.started()


async def test_the_fastapi_example_of_the_guide_works(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EVENTBUS_NATS_URL", nats_server.url)
    example = _first_block(GUIDE.read_text())
    monkeypatch.setitem(sys.modules, "shop", shop := ModuleType("shop"))
    exec(compile(example, str(GUIDE), "exec"), vars(shop))
    app = vars(shop)["app"]
    assert isinstance(app, FastAPI)

    async with client_of(app) as client:
        order = {"order_id": "o-1", "email": "ada@example.org"}
        placed = await client.post("/orders", json=order, headers={"X-Correlation-ID": "story-1"})
        wrong = await client.post("/orders", json={"order_id": "o-1"})
        ready = await client.get("/readyz")
        printed = ""

        async def packed() -> bool:
            nonlocal printed
            printed += capfd.readouterr().out
            return printed != ""

        await eventually(packed)

    assert (placed.status_code, placed.headers["x-correlation-id"]) == (202, "story-1")
    assert (wrong.status_code, ready.status_code) == (422, 200)
    assert printed == "packing o-1, asked for by story-1\n"


def _first_block(text: str) -> str:
    block = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert block is not None, "the guide has no Python block"
    return block[1]


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


async def _refuses(url: str) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", _port(url)), timeout=1):
            return False
    except ConnectionRefusedError:
        return True


def _causes(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [cause for one in error.exceptions for cause in _causes(one)]
    return [error]
