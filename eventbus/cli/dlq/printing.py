"""How dead letters look: for people, and as JSON."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from eventbus import headers as h
from eventbus.clock import SystemClock

if TYPE_CHECKING:
    from eventbus.ops.deadletters import Group, Letter, Redrive, Redriven, Stats

__all__ = (
    "group_record",
    "letter_record",
    "parked_lines",
    "print_groups",
    "print_letter",
    "print_letters",
    "print_stats",
    "redriven_line",
    "redriven_record",
    "stats_record",
    "story_record",
)

_KIB = 1024


def letter_record(letter: "Letter") -> dict[str, object]:
    """Return a letter without its content."""
    failure = letter.failure
    return {
        "number": letter.number,
        "stored_at": h.render_time(letter.place.time),
        "service": failure.service,
        "listener": failure.listener,
        "event": letter.event,
        "id": letter.id,
        "key": letter.key,
        "tags": list(letter.tags),
        "correlation_id": letter.correlation_id,
        "reason": failure.reason.value,
        "error_type": failure.error_type,
        "error_message": failure.error_message,
        "failed_at": h.render_time(failure.failed_at),
        "attempts": failure.attempts,
        "fingerprint": failure.fingerprint,
        "redrive": failure.redrive,
        "redrives": [_redrive_record(one) for one in letter.redrives],
    }


def story_record(letter: "Letter", failed_again: Sequence[int]) -> dict[str, object]:
    """Return a letter with everything that is known of it."""
    failure = letter.failure
    try:
        payload: object = json.loads(letter.message.body)
        raw = None
    except ValueError:
        payload = None
        raw = base64.b64encode(letter.message.body).decode()
    return {
        **letter_record(letter),
        "failed_again": list(failed_again),
        "original_subject": failure.original_subject,
        "original_stream": failure.original_stream,
        "original_seq": failure.original_seq,
        "error_stack": failure.error_stack,
        "headers": _headers(letter),
        "payload": payload,
        "payload_base64": raw,
    }


def group_record(group: "Group") -> dict[str, object]:
    """Return a group of letters."""
    return {
        "fingerprint": group.fingerprint,
        "letters": group.letters,
        "redriven": group.redriven,
        "first": h.render_time(group.first),
        "last": h.render_time(group.last),
        "sample": letter_record(group.sample),
    }


def stats_record(stats: "Stats") -> dict[str, object]:
    """Return what the stream of dead letters holds."""
    return {
        "letters": stats.letters,
        "redriven": stats.redriven,
        "foreign": stats.foreign,
        "oldest": h.render_time(stats.oldest) if stats.oldest else None,
        "newest": h.render_time(stats.newest) if stats.newest else None,
        "stream": stats.stream,
        "bytes": stats.bytes,
        "max_bytes": stats.max_bytes,
        "fill": stats.fill,
        "counts": [
            {
                "service": one.service,
                "listener": one.listener,
                "reason": one.reason.value,
                "letters": one.letters,
                "redriven": one.redriven,
                "oldest": h.render_time(one.oldest),
            }
            for one in stats.counts
        ],
    }


def redriven_record(one: "Redriven") -> dict[str, object]:
    """Return what became of a letter that was to be redriven."""
    letter = one.letter
    return {
        "number": letter.number,
        "service": letter.failure.service,
        "listener": letter.failure.listener,
        "event": letter.event,
        "id": letter.id,
        "result": one.result.value,
        "redrive": one.number,
        "edited": letter.edited,
        "problem": one.problem,
        "key": letter.key,
        "key_left": one.key_left,
    }


def redriven_line(one: "Redriven") -> str:
    """Return one line about a letter that was to be redriven."""
    letter = one.letter
    problem = f" ({one.problem})" if one.problem else ""
    return _plain(f"{letter.number}  {letter.event} to {letter.listener}: {one.result}{problem}")


def parked_lines(done: "Iterable[Mapping[str, object]]") -> list[str]:
    """Return a line for each parked key of which letters were redriven, by their records."""
    left = {
        (f"{one['service']}.{one['listener']}", one["key"]): one["key_left"]
        for one in done
        if one["key_left"] is not None
    }
    return [
        _plain(
            f"key '{key}' of {listener} stays parked: {count} more of its letters are left"
            if count
            else f"key '{key}' of {listener} is free once they are handled, if no more came meanwhile"
        )
        for (listener, key), count in left.items()
    ]


def print_letters(letters: "Iterable[Letter]") -> None:
    """Print letters as a table."""
    _table(
        ("no.", "age", "listener", "event", "reason", "redriven", "error"),
        (
            (
                str(one.number),
                _age(one.place.time),
                one.listener,
                one.event,
                one.failure.reason.value,
                f"{one.redrives[-1].number}x" if one.redrives else "",
                _error(one),
            )
            for one in letters
        ),
    )


def print_groups(groups: "Iterable[Group]") -> None:
    """Print groups of letters, two lines for each."""
    for one in groups:
        seen = f"{_age(one.last)} ago"
        if one.letters > 1:
            seen = f"{_age(one.last)} to {_age(one.first)} ago"
        redriven = f", {one.redriven} redriven" if one.redriven else ""
        letters = f"{one.letters} letter{'s' if one.letters > 1 else ''}"
        of = f"of {one.sample.listener} on {one.sample.event}"
        print(_plain(f"{one.fingerprint}  {letters} {of}, {seen}{redriven}"))
        print(_plain(f"  {_error(one.sample) or one.sample.failure.reason}"))
        print(f"  the last one is letter {one.sample.number}")


def print_letter(letter: "Letter", failed_again: Sequence[int]) -> None:
    """Print all that is known of a letter."""
    failure = letter.failure
    again = f", in redrive {failure.redrive}" if failure.redrive else ""
    facts = {
        "event": f"{letter.event} {letter.id}",
        "listener": letter.listener,
        "failed": f"{_time(failure.failed_at)}, after {failure.attempts} attempts{again}",
        "reason": failure.reason.value,
        "error": _error(letter),
        "fingerprint": failure.fingerprint,
        "key": letter.key or "",
        "tags": ", ".join(letter.tags),
        "correlation": letter.correlation_id,
        "stored as": f"{failure.original_stream} {failure.original_seq} on "
        f"{failure.original_subject}",
        "redriven": ", ".join(_redrive(one) for one in letter.redrives) or "never",
        "failed again": ", ".join(f"as letter {one}" for one in failed_again),
    }
    print(f"dead letter {letter.number}")
    for name, fact in facts.items():
        if fact:
            print(f"  {name:<13} {_plain(fact)}")
    print("\nheaders")
    for name, value in _headers(letter).items():
        print(f"  {_plain(name)}: {_plain(value)}")
    print(f"\npayload\n{_indented(_payload(letter))}")
    if failure.error_stack:
        print(f"\nstack\n{_indented(failure.error_stack.rstrip())}")


def print_stats(stats: "Stats") -> None:
    """Print what the stream of dead letters holds."""
    room = f" of {_size(stats.max_bytes)} ({stats.fill:.0%})" if stats.max_bytes else ""
    oldest = f", the oldest is {_age(stats.oldest)} old" if stats.oldest else ""
    redriven = f", {stats.redriven} of them redriven" if stats.redriven else ""
    print(f"{stats.stream}: {stats.letters} dead letters{redriven}{oldest}")
    print(f"it takes {_size(stats.bytes)}{room}")
    if stats.foreign:
        print(f"{stats.foreign} messages there aren't dead letters; the bus leaves them alone")
    if stats.counts:
        _table(
            ("letters", "redriven", "oldest", "reason", "listener"),
            (
                (
                    str(one.letters),
                    str(one.redriven or ""),
                    _age(one.oldest),
                    one.reason.value,
                    f"{one.service}.{one.listener}",
                )
                for one in stats.counts
            ),
        )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table in as many lines as it has rows; the last column is cut where it is long."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    lines = [[Text(_plain(cell)) for cell in row] for row in rows]
    made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        widest = max([len(column), *(line[index].cell_len for line in lines)])
        is_last = index == len(columns) - 1
        made.add_column(column, no_wrap=True, min_width=0 if is_last else widest)
    for line in lines:
        made.add_row(*line)
    Console().print(made)


def _headers(letter: "Letter") -> dict[str, str]:
    """Return the event's own headers; those of its death are told elsewhere."""
    left_out = (h.DEAD.lower(), "nats-")
    return {
        name: h.unquoted(value)
        for name, value in sorted(letter.message.headers.items())
        if not name.startswith(left_out)
    }


def _payload(letter: "Letter") -> str:
    body = letter.message.body
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        return f"not JSON, {len(body)} bytes: {body[:200]!r}"


def _redrive_record(one: "Redrive") -> dict[str, object]:
    return {"number": one.number, "at": h.render_time(one.at), "edited": one.edited}


def _redrive(one: "Redrive") -> str:
    return f"{_time(one.at)}{' with an edited payload' if one.edited else ''}"


def _error(letter: "Letter") -> str:
    failure = letter.failure
    text = ": ".join(part for part in (failure.error_type, failure.error_message) if part)
    return " ".join(text.split())


def _plain(text: str) -> str:
    """Return a text that only shows: what came from outside may hold a terminal's commands."""
    return "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text)


def _indented(text: str) -> str:
    return "\n".join(f"  {_plain(line)}" for line in text.splitlines())


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def _age(time: datetime) -> str:
    age = max(SystemClock().now() - time, timedelta())
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if age.total_seconds() >= 2 * length:
            return f"{age.total_seconds() / length:.0f}{unit}"
    return f"{age.total_seconds():.0f}s"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < _KIB:
            return f"{size:.3g} {unit}"
        size /= _KIB
    return f"{size:.3g} GiB"
