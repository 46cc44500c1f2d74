"""`DriverConfig`: one named way to use a driver, checked when it is written down."""

from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from eventbus.duration import seconds

__all__ = ("DriverConfig",)

_Seconds = Annotated[float, BeforeValidator(seconds)]


class DriverConfig(BaseModel):
    """What a connection of a service is; an event, an emit and a listener name it.

    ::

        events = EventService("shop", drivers={
            "queue": DriverConfig(),
            "queue_other": DriverConfig(queue="other", attempts=3, run_after=10),
        })

    A listener works on the connection that its ``connection=`` names, else on that of its event's
    ``driver=``, else on the service's default one, and what follows holds for it there. Two
    connections of one server and one namespace share the streams: what is emitted through either
    comes to the listeners of both.

    Raises:
        ValidationError: pydantic's, naming each option that is wrong or unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    driver: str = "jetstream"
    """Which driver: `jetstream` (or `queue`), `memory`, `sync`, or one of an installed package."""
    queue: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """The queue of its listeners that name none."""
    attempts: int | None = Field(default=None, ge=1)
    """Total runs of its listeners that declare no `Retry`, the first included."""
    run_after: _Seconds = 0.0
    """Delay of what is emitted through it."""
    failed_queue: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]{0,31}$")
    """Keep the dead letters of its listeners apart, in ``<NS>_DLQ_<NAME>``."""
    run_once: bool = False
    """One attempt, whatever the listener declares, then a dead letter."""
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """Settings that differ from the service's, such as ``nats_url`` and ``namespace``."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.run_once and (self.attempts or 1) > 1:
            raise ValueError(f"run_once is one attempt, and attempts={self.attempts}; drop one")
        if self.failed_queue is not None and "failed_queue" in self.settings:
            raise ValueError("failed_queue is given twice, also in settings; drop one")
        return self
