"""GitHub deliveries to send: some made up here, or those of a file; signed as GitHub signs."""

import hashlib
import hmac
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from eventbus.errors import ConfigurationError

__all__ = ("Delivery", "made_up", "read")

_REPOSITORY = {"full_name": "ada/engine", "html_url": "https://github.example/ada/engine"}
_SENDER = {"login": "ada"}


@dataclass(frozen=True, slots=True)
class Delivery:
    """What GitHub posts to a webhook."""

    kind: str
    id: str
    body: bytes

    def headers(self, secret: str) -> dict[str, str]:
        """Return its headers, with the signature that the secret gives."""
        digest = hmac.new(secret.encode(), self.body, hashlib.sha256).hexdigest()
        return {
            "X-GitHub-Event": self.kind,
            "X-GitHub-Delivery": self.id,
            "X-Hub-Signature-256": f"sha256={digest}",
        }


def read(file: Path) -> list[Delivery]:
    """Return the deliveries in a file of ``{"event": ..., "payload": ...}`` lines.

    Raises:
        ConfigurationError: It can't be read, or a line isn't that.
    """
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"can't read the deliveries in '{file}': {exc}") from exc
    return [_line(file, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _line(file: Path, number: int, line: str) -> Delivery:
    try:
        record = json.loads(line)
        return _delivery(str(record["event"]), record["payload"])
    except (ValueError, KeyError, TypeError) as exc:
        raise ConfigurationError(
            f"{file}:{number} isn't a delivery ({type(exc).__name__}: {exc}); each line is "
            '{"event": "<kind>", "payload": {...}}'
        ) from exc


def _delivery(kind: str, payload: object) -> Delivery:
    return Delivery(kind, str(uuid4()), json.dumps(payload, separators=(",", ":")).encode())


def made_up() -> list[Delivery]:
    """Return the life of a few issues, pull requests and releases, and kinds nobody reads."""
    return [_delivery(kind, payload) for kind, payload in _payloads()]


def _payloads() -> Iterator[tuple[str, object]]:
    for number in range(1, 7):
        yield from _issue(number, ("opened", "labeled", "closed", "reopened")[: 1 + number % 4])
    for number in range(7, 12):
        yield from _pull_request(number)
        yield "push", _push(number)
    for number in range(1, 4):
        yield "release", _release(number)
    yield "ping", {"zen": "Keep it logically awesome.", "hook_id": 1}
    yield "star", {"action": "created", "repository": _REPOSITORY, "sender": _SENDER}


def _issue(number: int, actions: Sequence[str]) -> Iterator[tuple[str, object]]:
    for action in actions:
        yield "issues", _about(action, issue=_ticket(number, "issues", "The engine is slow"))


def _pull_request(number: int) -> Iterator[tuple[str, object]]:
    ticket = _ticket(number, "pull", "Oil the engine")
    yield "pull_request", _about("opened", pull_request=ticket)
    yield "pull_request", _about("synchronize", pull_request=ticket)
    yield "pull_request", _about("closed", pull_request={**ticket, "merged": number % 2 == 1})


def _push(number: int) -> dict[str, object]:
    return {
        "ref": "refs/heads/main",
        "before": f"{number:040x}",
        "after": f"{number + 1:040x}",
        "forced": False,
        "commits": [{"id": f"{number + 1:040x}", "message": "Oil the engine"}],
        "repository": _REPOSITORY,
        "sender": _SENDER,
    }


def _release(number: int) -> dict[str, object]:
    tag = f"v1.{number}.0"
    url = f"{_REPOSITORY['html_url']}/releases/{tag}"
    return _about(
        "published" if number > 1 else "created",
        release={"id": 9000 + number, "tag_name": tag, "name": f"Engine {tag}", "html_url": url},
    )


def _about(action: str, **subject: object) -> dict[str, object]:
    return {"action": action, **subject, "repository": _REPOSITORY, "sender": _SENDER}


def _ticket(number: int, place: str, title: str) -> dict[str, object]:
    url = f"{_REPOSITORY['html_url']}/{place}/{number}"
    return {"id": 4000 + number, "number": number, "title": title, "html_url": url}
