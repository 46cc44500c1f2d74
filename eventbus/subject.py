"""Build, validate and match names and NATS subjects; the only place that knows ``*``, ``>``, ``.``.

The layout is told in docs/guide/wire.md.
"""

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from eventbus.errors import SubjectError

__all__ = (
    "Subjects",
    "check_event_name",
    "check_name",
    "check_pattern",
    "check_service_name",
    "covers",
    "encode_key",
    "is_pattern",
    "matches",
    "without_covered",
)

_EVENT_NAME: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*){1,3}")
_PATTERN_TOKEN: Final = re.compile(r"[a-z][a-z0-9_]*|\*")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_KEY_MARKER: Final = "="
MAX_EVENT_NAME: Final = 128


def check_event_name(name: str) -> str:
    """Return the name if it is a valid event name, ``resource.action`` in 2 to 4 tokens.

    Raises:
        SubjectError: It isn't; the message says what is wrong and shows a valid one.
    """
    if len(name) <= MAX_EVENT_NAME and _EVENT_NAME.fullmatch(name):
        return name
    raise SubjectError(value=name, problem=f"isn't an event name: {_name_problem(name)}")


def _name_problem(name: str) -> str:
    example = "a name is 2 to 4 lower-case tokens in the past tense, like 'user.created'"
    if not name:
        return f"it is empty; {example}"
    if len(name) > MAX_EVENT_NAME:
        return f"it has {len(name)} characters, {MAX_EVENT_NAME} are allowed"
    if "*" in name or ">" in name:
        return f"wildcards are for subscribe(), not for names; {example}"
    if any(char.isspace() for char in name):
        return f"it holds white space; {example}"
    if name != name.lower():
        dotted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", ".", name).lower()
        return f"it has capitals, write '{dotted}'; {example}"
    tokens = name.split(".")
    if "" in tokens:
        return f"it has an empty token; {example}"
    if not 2 <= len(tokens) <= 4:
        return f"it has {len(tokens)} token{'s' if len(tokens) > 1 else ''}; {example}"
    bad = next(token for token in tokens if not re.fullmatch(r"[a-z][a-z0-9_]*", token))
    return f"token {bad!r} may hold a-z, 0-9 and _ and starts with a letter; {example}"


def check_pattern(pattern: str) -> str:
    """Return the pattern if it is an event name or one with wildcards (``user.*``, ``user.>``).

    ``*`` stands for one token, a closing ``>`` for one or more, ``>`` alone for everything.

    Raises:
        SubjectError: It is neither.
    """
    if not is_pattern(pattern):
        return check_event_name(pattern)
    tokens = pattern.split(".")
    body = tokens[:-1] if tokens[-1] == ">" else tokens
    takes_some = tokens[-1] == ">" or len(tokens) >= 2
    if takes_some and len(tokens) <= 4 and all(_PATTERN_TOKEN.fullmatch(token) for token in body):
        return pattern
    raise SubjectError(
        value=pattern,
        problem="isn't a pattern: 2 to 4 tokens of a-z, 0-9 and _, or '*' for one token, "
        "or '>' as the last, like 'user.*' or 'user.>'; '>' alone takes every event",
    )


def is_pattern(text: str) -> bool:
    """Tell whether it holds a wildcard."""
    return "*" in text or ">" in text


def check_name(name: str, what: str) -> str:
    """Return a service, listener, stream or namespace name if NATS and we allow it.

    Raises:
        SubjectError: It isn't 1 to 64 of ``A-Z a-z 0-9 _ -``.
    """
    if _NAME.fullmatch(name):
        return name
    raise SubjectError(
        value=name, problem=f"isn't a {what} name: use 1 to 64 of A-Z, a-z, 0-9, '_' and '-'"
    )


def check_service_name(name: str) -> str:
    """Return a service's name if it is allowed.

    ``<service>__<listener>`` names a durable, so the service must not blur where it ends: else
    two services could share one durable, and each would get a part of the events.

    Raises:
        SubjectError: It isn't 1 to 64 of ``A-Z a-z 0-9 _ -``, holds ``__`` or ends with ``_``.
    """
    if "__" in name or name.endswith("_"):
        raise SubjectError(
            value=name, problem="isn't a service name: no '__', and no '_' at its end"
        )
    return check_name(name, "service")


def matches(pattern: str, name: str) -> bool:
    """Tell whether a pattern takes a literal name, by the rules of NATS."""
    return covers(pattern, name)


def covers(wide: str, narrow: str) -> bool:
    """Tell whether every name that ``narrow`` takes is also taken by ``wide``."""
    wide_tokens, narrow_tokens = wide.split("."), narrow.split(".")
    for index, token in enumerate(wide_tokens):
        if token == ">":
            return len(narrow_tokens) > index
        if index >= len(narrow_tokens) or narrow_tokens[index] == ">":
            return False
        if token not in ("*", narrow_tokens[index]):
            return False
    return len(wide_tokens) == len(narrow_tokens)


def without_covered(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns sorted, without those another one covers.

    The server refuses a consumer whose filters overlap (error 10138).
    """
    unique = sorted(set(patterns))
    return tuple(
        one for one in unique if not any(other != one and covers(other, one) for other in unique)
    )


def encode_key(key: str) -> str:
    """Return an ordering key as one subject token: as is where possible, else marked base64url."""
    if _KEY.fullmatch(key):
        return key
    return _KEY_MARKER + base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class Subjects:
    """All subjects and stream names of one namespace."""

    namespace: str = "events"
    failed_queue: str = ""
    """Where dead letters are kept apart from those of others; empty for where all are."""

    def __post_init__(self) -> None:
        """Refuse a namespace that can't be a subject token and, in capitals, a stream name."""
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", self.namespace):
            raise SubjectError(
                value=self.namespace,
                problem="isn't a namespace: use up to 32 of a-z, 0-9 and '_', a letter first",
            )

    @property
    def stream(self) -> str:
        """The stream of events."""
        return self.namespace.upper()

    @property
    def later_stream(self) -> str:
        """The stream of schedules and parked retries."""
        return f"{self.stream}_LATER"

    @property
    def state_stream(self) -> str:
        """The stream that keeps the last state event of each key."""
        return f"{self.stream}_STATE"

    @property
    def dead_letter_stream(self) -> str:
        """The stream of dead letters."""
        apart = f"_{self.failed_queue.upper()}" if self.failed_queue else ""
        return f"{self.stream}_DLQ{apart}"

    @property
    def dead_letters(self) -> str:
        """All subjects of that stream."""
        apart = f"-{self.failed_queue}" if self.failed_queue else ""
        return f"{self.namespace}-dlq{apart}.>"

    @property
    def attempts_bucket(self) -> str:
        """The key-value bucket of failed attempts."""
        return f"{self.stream}_ATTEMPTS"

    @property
    def prefix(self) -> str:
        """What stands before an event name, its dot included."""
        return f"{self.namespace}."

    def event(self, name: str) -> str:
        """Where an event, or a pattern of events, is published."""
        return f"{self.namespace}.{name}"

    def inbox(self, service: str, listener: str, id: str) -> str:
        """Where an atomic listener leaves its mark."""
        return f"{self.namespace}-inbox.{service}.{listener}.{encode_key(id)}"

    def held(self, mark: str) -> str:
        """Where a mark is while the stream of events is full; no schedule has so many tokens."""
        return f"{self.namespace}-sched.inbox.{mark.partition('.')[2]}"

    def inboxes(self, durable: str = "") -> str:
        """Return the pattern of the marks of a durable's listener; of all without one."""
        service, _, listener = durable.partition("__")
        return (
            f"{self.namespace}-inbox.{service}.{listener}.>"
            if durable
            else f"{self.namespace}-inbox.>"
        )

    def state(self, name: str, key: str) -> str:
        """Where the last state event of a key is kept."""
        return f"{self.namespace}-state.{name}.{encode_key(key)}"

    def states(self, name: str) -> str:
        """Where the last state events of all keys are kept."""
        return f"{self.namespace}-state.{name}.*"

    def due(self, name: str) -> str:
        """Where a delayed emit fires; the stream of events sources it from there."""
        return f"{self.namespace}-due.{name}"

    def schedule(self, service: str, id: str) -> str:
        """Where a delayed emit waits."""
        return f"{self.namespace}-sched.{service}.{encode_key(id)}"

    def schedules(self, service: str = "*") -> str:
        """Return the pattern of where the delayed emits of a service wait, or of all."""
        return f"{self.namespace}-sched.{service}.*"

    def tick(self, service: str, name: str) -> str:
        """Where the next tick of a recurring event waits; no listener's retry waits there.

        Those end with a number, which the name of a recurring event can't be.
        """
        return f"{self.namespace}-sched.{service}.tick.{name}"

    def parked(self, service: str, listener: str, sequence: int) -> str:
        """Where a parked retry waits; publishing there again replaces it."""
        return f"{self.namespace}-sched.{service}.{listener}.{sequence}"

    def ask(self, name: str) -> str:
        """Where a query is asked; no stream takes it."""
        return f"{self.namespace}-ask.{name}"

    def retry(self, service: str, listener: str, name: str) -> str:
        """Where an event comes back to one listener alone; ``name`` may be ``>``."""
        return f"{self.namespace}-retry.{service}.{listener}.{name}"

    @property
    def retries(self) -> str:
        """Everything that comes back to one listener alone."""
        return f"{self.namespace}-retry.>"

    @property
    def position(self) -> str:
        """Where a mark shows how far what waited was taken over; no service is called ``_``."""
        return f"{self.namespace}-retry._.janitor.mark"

    def dead_letter(self, service: str, listener: str, name: str) -> str:
        """Where a dead letter of a listener is kept; ``name`` may be ``>``."""
        return f"{self.dead_letters[:-1]}{service}.{listener}.{name}"

    def event_name(self, subject: str) -> str | None:
        """Return the event name that an event or retry subject speaks of, None if neither does."""
        retry = f"{self.namespace}-retry."
        if subject.startswith(self.prefix):
            name = subject[len(self.prefix) :]
        elif subject.startswith(retry):
            name = ".".join(subject[len(retry) :].split(".")[2:])
        else:
            return None
        return name if len(name) <= MAX_EVENT_NAME and _EVENT_NAME.fullmatch(name) else None
