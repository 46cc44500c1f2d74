"""Lines are captured as they are written, and read back as what a log collector reads."""

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import use_span

from eventbus.delivery import Outcome, Reason
from eventbus.drivers.base import Connected, ConsumerRecovered, Disconnected, TopologyChanged
from eventbus.errors import EmitUnknown, RetryLater, SettleError
from eventbus.middleware.base import Context
from eventbus.settings import Settings
from eventbus.telemetry.logs import LogContext, LogObserver, configure
from eventbus.telemetry.signals import (
    EmitFailed,
    Emitted,
    FailedHookRaised,
    Happened,
    ListenerStarted,
    Received,
    Returned,
    Settled,
    Stopped,
    Stuck,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture(autouse=True)
def _logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def lines() -> Callable[[], list[dict[str, Any]]]:
    """Log JSON from debug up; what was written is returned by calling it."""
    out = io.StringIO()
    configure(Settings(log_level="debug", log_format="json"), stream=out)

    def written() -> list[dict[str, Any]]:
        read = [json.loads(line) for line in out.getvalue().splitlines()]
        return [line for line in read if line["logger"] != "asyncio"]

    return written


def settled(outcome: Outcome, **changes: object) -> Settled:
    given: dict[str, Any] = {
        "name": "user.created",
        "id": "id-1",
        "service": "notification",
        "listener": "send_welcome",
        "outcome": outcome,
        "attempt": 2,
        "attempts": 5,
        "duration": 0.0125,
        "end_to_end": 0.5,
        "correlation_id": "c-1",
        "causation_id": "id-0",
        "stream": "EVENTS",
        "sequence": 7,
        "subject": "events.user.created",
        "trace": TRACEPARENT,
    }
    return Settled(**{**given, **changes})


def test_a_settled_delivery_is_one_line_with_all_its_fields(lines):
    LogObserver()(settled(Outcome.OK))

    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "debug",
        "event": "delivery.settled",
        "logger": "eventbus",
        "event_name": "user.created",
        "event_id": "id-1",
        "service": "notification",
        "listener": "send_welcome",
        "outcome": "ok",
        "attempt": 2,
        "max_attempts": 5,
        "duration_ms": 12.5,
        "e2e_ms": 500.0,
        "correlation_id": "c-1",
        "causation_id": "id-0",
        "trace_id": TRACE,
        "stream": "EVENTS",
        "seq": 7,
        "subject": "events.user.created",
    }


def test_what_is_not_known_is_left_out(lines):
    LogObserver()(
        settled(Outcome.OK, id="", end_to_end=None, causation_id=None, stream="", sequence=0)
    )

    (line,) = lines()
    assert {"event_id", "e2e_ms", "causation_id", "stream", "seq", "reason"} & line.keys() == set()


def test_a_retry_is_a_warning_with_the_error_but_no_stack(lines):
    LogObserver()(settled(Outcome.RETRY, delay=1.5, error=_raised(OSError("mail server down"))))

    (line,) = lines()
    assert line["level"] == "warning"
    assert line["error_type"] == "OSError"
    assert line["error_message"] == "mail server down"
    assert line["delay_ms"] == 1500.0
    assert "exception" not in line


def test_a_retry_that_the_listener_asked_for_is_no_warning(lines):
    LogObserver()(settled(Outcome.RETRY, delay=60, error=RetryLater("1m")))

    assert lines()[0]["level"] == "info"


def test_a_dead_letter_is_an_error_with_the_stack(lines):
    error = _raised(ValueError("no such template"))

    LogObserver()(settled(Outcome.DEAD, reason=Reason.EXCEPTION, error=error))

    (line,) = lines()
    assert line["level"] == "error"
    assert line["reason"] == "exception"
    assert "Traceback" in line["exception"]
    assert "in listener" in line["exception"]


def test_a_dead_letter_that_no_code_of_ours_caused_has_no_stack(lines):
    LogObserver()(settled(Outcome.DEAD, reason=Reason.EXPIRED, detail="expired at noon"))

    (line,) = lines()
    assert line["level"] == "error"
    assert line["detail"] == "expired at noon"
    assert "exception" not in line


def test_a_dropped_event_is_logged_with_its_reason(lines):
    LogObserver()(settled(Outcome.DROPPED, detail="not subscribed to mail"))

    (line,) = lines()
    assert (line["level"], line["detail"]) == ("info", "not subscribed to mail")


EMITTED = Emitted(
    name="user.created",
    id="id-1",
    driver="jetstream",
    correlation_id="c-1",
    duration=0.002,
    size=31,
    duplicate=False,
    key="ada@example.org",
)
UNKNOWN = EmitUnknown(name="user.created", id="id-1", after=15.0, tries=8)


@pytest.mark.parametrize(
    ("happened", "level", "event", "field"),
    [
        (EMITTED, "debug", "event.emitted", ("size", 31)),
        (replace(EMITTED, trace=TRACEPARENT), "debug", "event.emitted", ("trace_id", TRACE)),
        (
            EmitFailed("user.created", "id-1", "jetstream", "c-1", 15.0, UNKNOWN),
            "warning",
            "emit.failed",
            ("error_type", "driver.emit_unknown"),
        ),
        (
            Stuck("user.created", "notification", "send_welcome", SettleError("no answer")),
            "warning",
            "delivery.stuck",
            ("error_type", "driver.settle"),
        ),
        (
            FailedHookRaised("user.created", "id-1", "notification", "send_welcome", KeyError()),
            "error",
            "failed_hook.raised",
            ("error_type", "KeyError"),
        ),
        (
            Returned("user.created", "notification", "send_welcome"),
            "debug",
            "delivery.returned",
            ("listener", "send_welcome"),
        ),
        (Stopped("notification", 0), "info", "service.stopped", ("cancelled", 0)),
        (Stopped("notification", 2), "warning", "service.stopped", ("cancelled", 2)),
        (
            Connected("nats-1", "2.15.1", again=True),
            "info",
            "connection.established",
            ("again", True),
        ),
        (
            Disconnected("read loop ended"),
            "warning",
            "connection.lost",
            ("problem", "read loop ended"),
        ),
        (
            ConsumerRecovered("notification__send_welcome", "no heartbeat"),
            "warning",
            "consumer.recovered",
            ("durable", "notification__send_welcome"),
        ),
        (
            TopologyChanged("stream EVENTS", "created"),
            "info",
            "topology.changed",
            ("thing", "stream EVENTS"),
        ),
    ],
)
def test_what_happened_has_its_line(
    lines, happened: Happened, level: str, event: str, field: tuple[str, object]
):
    LogObserver()(happened)

    (line,) = lines()
    assert (line["level"], line["event"]) == (level, event)
    assert line[field[0]] == field[1]


def test_lines_that_name_no_service_name_the_observers(lines):
    log = LogObserver("user")

    log(Disconnected("read loop ended"))
    log(settled(Outcome.OK))

    assert [line["service"] for line in lines()] == ["user", "notification"]


def test_keys_are_not_logged(lines):
    LogObserver()(EMITTED)

    assert "ada@example.org" not in json.dumps(lines())


def test_what_is_only_counted_is_not_logged(lines):
    log = LogObserver()

    log(Received("user.created", "notification", "send_welcome", redelivered=False))
    log(ListenerStarted("user.created", "id-1", "notification", "send_welcome", 1, "c-1"))

    assert lines() == []


def test_from_info_up_an_event_that_is_handled_leaves_no_line():
    out = io.StringIO()
    configure(Settings(log_level="info", log_format="json"), stream=out)

    LogObserver()(settled(Outcome.OK))
    structlog.get_logger("shop").debug("not.logged")
    logging.getLogger("shop").debug("not logged")

    assert out.getvalue() == ""


def test_a_line_that_is_not_logged_costs_no_rendering():
    class Costly(RetryLater):
        def __str__(self) -> str:
            raise AssertionError("rendered for nothing")

    configure(Settings(log_level="warning", log_format="json"), stream=io.StringIO())

    LogObserver()(settled(Outcome.RETRY, error=Costly()))


def test_a_line_carries_the_active_span_unless_it_is_about_another_trace(lines):
    log = logging.getLogger("shop")
    span = TracerProvider().get_tracer("app").start_span("request")
    ids = span.get_span_context()

    with use_span(span):
        log.info("served")
        LogObserver()(settled(Outcome.OK))

    served, other = lines()
    assert served["trace_id"] == f"{ids.trace_id:032x}"
    assert served["span_id"] == f"{ids.span_id:016x}"
    assert other["trace_id"] == TRACE
    assert "span_id" not in other


async def test_a_listeners_own_lines_carry_the_event_by_structlog_and_by_stdlib(
    lines, make_context: Callable[..., Context]
):
    async def listener(context: Context) -> None:
        structlog.get_logger("shop").info("mail.sent", to=1)
        logging.getLogger("shop.mailer").warning("queue %s is long", "out")

    await LogContext()(make_context({"traceparent": TRACEPARENT}), listener)

    bound = {
        "event_name": "user.created",
        "event_id": "id-1",
        "service": "notification",
        "listener": "send_welcome",
        "attempt": 2,
        "correlation_id": "c-1",
        "trace_id": TRACE,
    }
    ours, stdlib = lines()
    assert ours.items() >= {"event": "mail.sent", "to": 1, "logger": "shop", **bound}.items()
    assert stdlib.items() >= {"event": "queue out is long", "level": "warning", **bound}.items()


async def test_fields_are_gone_after_the_listener_and_restored_after_a_nested_one(
    lines, make_context: Callable[..., Context]
):
    log = structlog.get_logger("shop")

    async def inner(context: Context) -> None:
        log.info("in.inner")

    async def outer(context: Context) -> None:
        await LogContext()(make_context(id="id-2"), inner)
        log.info("in.outer")
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - whatever it raises passes
        await LogContext()(make_context(id="id-1"), outer)
    log.info("outside")

    assert [line.get("event_id") for line in lines()] == ["id-2", "id-1", None]


async def test_without_a_trace_there_is_no_trace_id(lines, make_context: Callable[..., Context]):
    async def listener(context: Context) -> None:
        logging.getLogger("shop").info("handled")

    await LogContext()(make_context({"traceparent": "garbage"}), listener)

    assert "trace_id" not in lines()[0]


def test_an_error_logged_with_structlog_has_its_stack(lines):
    try:
        int("broken")
    except ValueError:
        structlog.get_logger("shop").exception("mail.failed")

    assert "ValueError: invalid literal" in lines()[0]["exception"]


def test_a_console_line_is_readable_and_shows_no_local_variables():
    out = io.StringIO()
    configure(Settings(log_format="console"), stream=out)

    LogObserver()(settled(Outcome.DEAD, reason=Reason.EXCEPTION, error=_raised(ValueError("bad"))))

    text = out.getvalue()
    assert "delivery.settled" in text
    assert "event_name=user.created" in text
    assert "ValueError: bad" in text
    assert "ada@example.org" not in text


def test_auto_is_json_where_nobody_looks():
    out = io.StringIO()
    configure(Settings(log_format="auto"), stream=out)

    logging.getLogger("shop").info("started")

    assert json.loads(out.getvalue())["event"] == "started"


def test_auto_is_for_humans_on_a_terminal():
    out = _Terminal()
    configure(Settings(log_format="auto"), stream=out)

    logging.getLogger("shop").info("started")

    assert "\x1b[" in out.getvalue()


def test_configuring_again_and_after_basic_config_prints_nothing_twice():
    first, second = io.StringIO(), io.StringIO()
    logging.getLogger().addHandler(logging.StreamHandler(sys.stderr))
    kept = logging.getLogger().handlers[0]
    configure(Settings(log_format="json"), stream=first)
    configure(Settings(log_format="json"), stream=second)

    logging.getLogger("nats").info("GET /")

    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1
    kinds = [type(handler) for handler in logging.getLogger().handlers]
    assert logging.StreamHandler not in kinds
    # pytest's own handler, a subclass, is still there.
    assert kept in logging.getLogger().handlers


def test_a_formatter_that_knows_no_fields_prints_them_too():
    logger = logging.getLogger("plain")
    logger.propagate = False
    out = io.StringIO()
    logger.addHandler(logging.StreamHandler(out))

    LogObserver(logger=logger)(Disconnected("read loop\nended"))

    assert out.getvalue() == "connection.lost problem='read loop\\nended'\n"


def _raised(error: Exception) -> Exception:
    """Return the error with a stack, whose frame holds something private."""

    def listener(email: str) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        # Put together here, since a stack does show the lines of code.
        listener("@".join(("ada", "example.org")))
    return caught.value


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True
