"""`Settings`: everything that is set from outside, validated once.

``EVENTBUS_*`` wins over aliases; two aliases that disagree are an error. A ``.env`` file in the
working directory is read, the environment wins over it, also with an empty variable, which counts
as unset. Durations are seconds or ``"5m"``.
"""

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, DotEnvSettingsSource, NoDecode, SettingsConfigDict

from eventbus.configuration import DriverConfig
from eventbus.duration import seconds
from eventbus.errors import SettingsError, SubjectError, did_you_mean
from eventbus.subject import Subjects, check_name

__all__ = ("ENV_FILE", "Provision", "Settings")

ENV_FILE = ".env"
"""Read from the working directory."""

Provision = Literal["auto", "check", "off"]


def _split(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, (list, tuple)):
        return tuple(map(str, cast("Sequence[object]", value)))
    raise ValueError("must be names, comma separated")


def _parsed(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return cast("object", json.loads(value))
    except ValueError as exc:
        raise ValueError('must be JSON, such as {"slow": {"queue": "slow"}}') from exc


def _instance(value: str) -> str:
    try:
        return check_name(value, "process")
    except SubjectError as exc:
        raise ValueError(str(exc)) from exc


_Instance = Annotated[str, AfterValidator(_instance)]
_Seconds = Annotated[float, BeforeValidator(seconds)]
_Drivers = Annotated[dict[str, DriverConfig], NoDecode, BeforeValidator(_parsed)]
_Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]

ALIASES: Mapping[str, tuple[str, ...]] = {
    "nats_url": ("NATS_URL",),
    "nats_creds": ("NATS_CREDS",),
    "connection_name": ("NATS_CLIENT_ID",),
    "cluster_name": ("NATS_CLUSTER_ID",),
    "driver": ("APP_EVENT_DRIVER",),
    "default_queue": ("EVENTS_DEFAULT_QUEUE",),
    "store_enabled": ("EVENTS_STORE_ENABLED",),
    "store_table": ("EVENTS_STORE_TABLE",),
    "retry_attempts": ("EVENTS_RETRY_ATTEMPTS", "EVENT_RETRY_ATTEMPTS"),
    "retry_delay": ("EVENTS_RETRY_DELAY_SECONDS", "EVENT_RETRY_DELAY"),
}
"""Environment variables of other conventions, by setting."""
_SCHEMES = ("nats", "tls", "ws", "wss")
_NUMBERS = ("EVENTS_RETRY_ATTEMPTS", "EVENT_RETRY_ATTEMPTS", "EVENTS_RETRY_DELAY_SECONDS")
_MILLISECONDS = ("EVENT_RETRY_DELAY",)
_NOT_SETTINGS = ("EVENTBUS_TEST_", "EVENTBUS_DEMO_")


class Settings(BaseSettings):
    """Settings of one process; each field is ``EVENTBUS_<FIELD>`` in the environment.

    Raises:
        SettingsError: From `load`, naming each wrong variable and what it must be.
    """

    model_config = SettingsConfigDict(
        env_prefix="EVENTBUS_",
        env_file=ENV_FILE,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    driver: str = "jetstream"
    """Which driver events go through."""
    namespace: str = "events"
    """First token of every subject; stream names are it in upper case."""
    listeners: str = ""
    """A map of event names to listeners, as ``package.module:NAME``; ``{service}`` in it is the
    service's name."""
    schemas: _Names = ("schemas",)
    """Packages whose events are known by name; found from the working directory."""
    concurrency: int | None = Field(default=None, ge=1)
    """How many events all listeners of a service handle at once in one process, those of high
    priority first; no limit but their own where not set."""
    default_queue: str = "default"
    """The queue of listeners that name none."""
    failed_queue: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]{0,31}$")
    """Keep dead letters apart, in ``<NS>_DLQ_<NAME>``; ``eventbus dlq`` works these then."""
    drivers: _Drivers = {}
    """Named configurations of drivers, as JSON: ``{"slow": {"queue": "slow", "attempts": 3}}``."""

    nats_url: str = "nats://127.0.0.1:4222"
    """Servers to connect to, comma separated."""
    nats_user: str | None = None
    nats_password: SecretStr | None = None
    nats_token: SecretStr | None = None
    nats_nkey_seed: SecretStr | None = None
    """The NKEY seed itself, or the path of a file that holds it."""
    nats_creds: Path | None = None
    """A ``.creds`` file (JWT and NKEY)."""
    tls_ca: Path | None = None
    """CA that signed the server's certificate; the system's where unset."""
    tls_cert: Path | None = None
    """Client certificate, for mutual TLS."""
    tls_key: Path | None = None
    tls_hostname: str | None = None
    """Name that the server's certificate must carry, where it isn't that of the URL."""
    instance: _Instance | None = None
    """What tells this process from the others of its service, such as a pod's name; it stays the
    same through restarts. For listeners that every process hears; ``run --workers`` appends each
    worker's number."""
    connection_name: str | None = None
    """How the server lists this connection; the service's name where unset."""
    cluster_name: str | None = None
    """The name the cluster must have; another one refuses to start."""
    connect_timeout: _Seconds = 5.0
    """How long one attempt to connect may take."""

    provision: Provision = "auto"
    """``auto`` creates what is missing, ``check`` refuses to start on drift, ``off`` binds only."""
    replicas: int = Field(default=1, ge=1, le=5)
    """Copies of each stream; 3 in production."""
    max_bytes: int = Field(default=512 * 1024 * 1024, ge=1024 * 1024)
    """Size limit of the stream of events; small by default, servers reserve it."""
    later_max_bytes: int = Field(default=512 * 1024 * 1024, ge=1024 * 1024)
    """Size above which nothing more is parked or delayed; long retries then wait in place."""
    max_age: _Seconds = 7 * 86400.0
    """How long events are kept."""
    duplicate_window: _Seconds = 600.0
    """How long the server remembers event ids."""

    emit_timeout: _Seconds = 15.0
    """How long an emit is retried, with the same id, before `EmitUnknown`."""
    fast_lane: bool = True
    """Write and read messages past nats-py's queues where its version allows that."""
    publish_timeout: _Seconds = 2.0
    """How long one try waits for the server's answer."""
    retry_attempts: int = Field(default=5, ge=1)
    """Total runs of a listener, the first included, where it declares no `Retry`."""
    retry_delay: _Seconds = 1.0
    """Delay before the second attempt; it doubles from there."""
    park_after: _Seconds = 30.0
    """Delays longer than this don't hold a pending place on the server."""
    grace: _Seconds = 25.0
    """How long a stop may take; under the 30 s after which Kubernetes kills."""

    store_url: str = "sqlite+aiosqlite:///eventbus.db"
    """The database of outbox, inbox and event store, as SQLAlchemy writes it."""
    store_enabled: bool = False
    """Whether every event is recorded in the event store, by whichever processes say so."""
    store_table: str = Field(default="eventbus_events", pattern=r"^[a-z][a-z0-9_]{0,47}$")
    """The event store's table."""
    outbox_notify: bool = True
    """Whether a commit wakes the relays (NOTIFY), on PostgreSQL; else they look each second."""

    http_host: str = "127.0.0.1"
    http_port: int = Field(default=0, ge=0, le=65535)
    """Port of a service's HTTP interface; 0 takes a free one and prints it."""
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Port of ``/metrics /livez /readyz``; 0 takes a free one and prints it, unset has none."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "console", "json"] = "auto"
    """``auto`` is console on a terminal and JSON otherwise."""
    tracing: Literal["auto", "on", "off"] = "auto"
    """``auto`` traces where ``OTEL_EXPORTER_OTLP_ENDPOINT`` or a tracer provider is set."""

    @classmethod
    def load(cls, **overrides: object) -> Self:
        """Return the settings of the environment, with ``overrides`` on top.

        Raises:
            SettingsError: A variable is wrong, unknown, or two aliases disagree; an override is
                unknown.
        """
        environment = _environment()
        _refuse_unknown(environment, overrides, cls.model_fields)
        variables = {field: f"EVENTBUS_{field.upper()}" for field in cls.model_fields}
        found = {one: environment[name] for one, name in variables.items() if name in environment}
        given = {**_from_aliases(environment), **found, **overrides}
        try:
            # The file is read by now: an empty variable hides what it says, which pydantic ignores.
            return cls(_env_file=None, **given)  # type: ignore[arg-type]
        except ValidationError as exc:
            raise SettingsError(_explained(exc)) from exc

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together; set both or neither")
        if (self.nats_user is None) != (self.nats_password is None):
            raise ValueError("nats_user and nats_password belong together; set both or neither")
        ways = ("nats_user", "nats_token", "nats_nkey_seed", "nats_creds")
        chosen = [way for way in ways if getattr(self, way) is not None]
        if len(chosen) > 1:
            raise ValueError(f"{' and '.join(chosen)} are all set; use one way to authenticate")
        if self.duplicate_window > self.max_age:
            raise ValueError("duplicate_window must not be longer than max_age")
        if self.emit_timeout >= self.duplicate_window:
            raise ValueError("emit_timeout must be shorter than duplicate_window")
        try:
            Subjects(self.namespace)
        except SubjectError as exc:
            raise ValueError(str(exc)) from exc
        return self

    @model_validator(mode="after")
    def _names_servers(self) -> Self:
        if not self.servers:
            raise ValueError("nats_url names no server")
        for scheme in {url.partition("://")[0] for url in self.servers if "://" in url}:
            if scheme not in _SCHEMES:
                raise ValueError(f"nats_url: '{scheme}://' isn't NATS; use {', '.join(_SCHEMES)}")
        return self

    @property
    def subjects(self) -> Subjects:
        """The subjects and stream names of the namespace."""
        return Subjects(self.namespace, self.failed_queue or "")

    def override(self, **changes: object) -> Self:
        """Return these settings with changes, checked as all are.

        Raises:
            SettingsError: One of them is wrong or unknown.
        """
        _refuse_unknown({}, changes, type(self).model_fields)
        try:
            # As in `load`: neither the file nor the environment has a say here.
            return type(self).model_validate({**dict(self), **changes})
        except ValidationError as exc:
            raise SettingsError(_explained(exc)) from exc

    @property
    def servers(self) -> tuple[str, ...]:
        """The server URLs."""
        return _split(self.nats_url)


def _environment() -> dict[str, str]:
    """Return the variables of ``.env`` and, on top, of the process; an empty one counts as unset."""
    file = DotEnvSettingsSource(Settings, env_file=ENV_FILE, case_sensitive=True)
    merged = {**file.env_vars, **os.environ}
    return {name: value for name, value in merged.items() if value}


def _from_aliases(environment: Mapping[str, str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for field, names in ALIASES.items():
        if f"EVENTBUS_{field.upper()}" in environment:
            continue
        values = {name: _scaled(name, environment[name]) for name in names if name in environment}
        if len(set(values.values())) > 1:
            listed = " and ".join(f"{name}={environment[name]}" for name in values)
            raise SettingsError(
                f"{listed} disagree; set EVENTBUS_{field.upper()}, which wins, or drop one"
            )
        if values:
            found[field] = next(iter(values.values()))
    return found


def _scaled(name: str, value: str) -> str | float:
    if name not in _MILLISECONDS:
        # "2" and "2.0" agree; a name stays a name, also where it is all digits.
        is_number = name in _NUMBERS and re.fullmatch(r"\d+(\.\d+)?", value)
        return float(value) if is_number else value
    try:
        return float(value) / 1000
    except ValueError as exc:
        raise SettingsError(f"{name}={value!r} must be a number of milliseconds") from exc


def _refuse_unknown(
    environment: Collection[str], overrides: Collection[str], fields: Collection[str]
) -> None:
    for name in overrides:
        if name not in fields:
            raise SettingsError(f"{name!r} isn't a setting{did_you_mean(name, fields)}")
    known = {f"EVENTBUS_{field.upper()}" for field in fields} | EXTRA_VARIABLES
    for name in environment:
        if not name.startswith("EVENTBUS_") or name.startswith(_NOT_SETTINGS) or name in known:
            continue
        hint = did_you_mean(name, known)
        # A typo in a variable would silently leave the default in force.
        if hint:
            raise SettingsError(f"{name} isn't a setting{hint}")


EXTRA_VARIABLES = frozenset(
    {
        "EVENTBUS_NATS_SERVER",
        "EVENTBUS_WEBHOOK_SECRET",
        "EVENTBUS_AUDIT_DATABASE",
        "EVENTBUS_MAILDIR",
        "EVENTBUS_FOLLOW_UP_AFTER",
        "EVENTBUS_STATEMENT_EVERY",
    }
)
"""Variables with our prefix that embedded servers and the example services read themselves."""


def _explained(error: ValidationError) -> str:
    lines: list[str] = []
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        inside = [str(part) for part in one["loc"][1:]]
        name = f"EVENTBUS_{str(one['loc'][0]).upper()}: " if one["loc"] else ""
        name += f"{'.'.join(inside)}: " if inside else ""
        lines.append(f"{name}{one['msg'].removeprefix('Value error, ')}")
    return "; ".join(lines)
