"""Send dead letters' events to the one listener that failed.

An event is published straight to the retry subject of its listener, which no other listener reads:
its id, its time, its correlation stay, attempts are counted from 1 again, an expiry doesn't hold
any more. `Eventbus-Redrive` says how often it was redriven; ids of what the listener emits derive
from it, and if it fails again its new letter tells it.

First the event is stored, then the redrive is recorded. A crash in between leaves a letter that
looks as before; redriving it again sends the same message id, which the server drops within the
duplicate window, and after that the listener gets the event once more. The letter itself is never
touched, so it can't be lost.
"""

import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

from eventbus import codec
from eventbus import headers as h
from eventbus.clock import Clock, SystemClock
from eventbus.drivers.jetstream.admin import ConsumerView
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.drivers.jetstream.letterbox import Redrive
from eventbus.duration import seconds
from eventbus.envelope import Message
from eventbus.event import spec_of
from eventbus.ops.deadletters.letters import Letter
from eventbus.ops.deadletters.parking import Parking
from eventbus.registry import Registry
from eventbus.subject import Subjects

__all__ = ("Redriven", "Result", "edited", "per_second", "redrive")

Letters: TypeAlias = AsyncIterable[Letter] | Iterable[Letter]

_RATE = re.compile(r"(\d+(?:\.\d+)?)(?:/(s|m|h|d))?")
_LEFT_BEHIND = tuple(
    name.lower() for name in (h.DEAD, h.ATTEMPT, h.BEGAN, h.RAISED, h.REDRIVE, h.UNPARK, h.EXPIRES)
)


class Result(StrEnum):
    """What became of a letter that was to be redriven."""

    REDRIVEN = "redriven"
    PLANNED = "planned"
    """It would be redriven; this was a dry run."""
    REFUSED = "refused"
    """Nothing was sent: nobody would get it."""


@dataclass(frozen=True, slots=True)
class Redriven:
    """A letter that was to be redriven, and what became of it."""

    letter: Letter
    result: Result
    number: int
    """Which redrive of the letter it is."""
    problem: str = ""
    """Why it was refused; of one that wasn't, what keeps it from being handled now."""
    key_left: int | None = None
    """How many letters of its parked key still have to be redriven: with 0, the key is free once
    this one is handled. None where its key isn't parked, or nothing was sent."""


async def redrive(
    driver: JetStreamDriver,
    letters: Letters,
    *,
    rate: float | str | None = None,
    dry_run: bool = False,
    clock: Clock | None = None,
) -> AsyncGenerator[Redriven]:
    """Send the events of letters to the listeners that failed; yield what becomes of each.

    Each is stored and recorded before it is yielded. It goes as fast as they are taken.
    What a parked key let pile up is handled again, and once the last one is, the key is free; so
    give its letters in the sequence of their events (`of_key`). If one fails again, the key is
    parked anew and those behind it become dead letters again.

    Args:
        driver: A connected one.
        letters: In the order to send them: what `eventbus.ops.deadletters.find` yields, or those
            that `edited` returned.
        rate: Most events a time: ``"20/s"``, ``"100/m"``, or a number for each second.
        dry_run: Send nothing.
        clock: For the rate, and the time in the record.

    Raises:
        ValueError: ``rate`` isn't a rate.
        DriverError: An event or its record may not be stored; those yielded before are.
    """
    clock = clock or SystemClock()
    pause = 1 / per_second(rate) if rate is not None and not dry_run else 0.0
    durables = await driver.admin.consumers()
    parking = Parking(driver)
    due = clock.monotonic()
    async for letter in _each(letters):
        number = _last(letter) + 1
        problem, is_taken = _reception(letter, durables, driver.letterbox.subjects)
        if not is_taken:
            yield Redriven(letter, Result.REFUSED, number, problem)
        elif dry_run:
            yield Redriven(letter, Result.PLANNED, number, problem)
        else:
            await clock.sleep(max(0.0, due - clock.monotonic()))
            due = max(due, clock.monotonic()) + pause
            unpark, left = await parking.unpark(letter)
            number = await _send(driver, letter, unpark, clock)
            yield Redriven(letter, Result.REDRIVEN, number, problem, left)


def edited(letter: Letter, payload: Mapping[str, object], registry: Registry) -> Letter:
    """Return a letter with another payload, to redrive it; strict, as an emit is.

    The event's id stays; where its class has a key field, its key follows the payload.

    Raises:
        UnknownEventError: No class is declared for the event.
        InvalidEventError: A field is missing, unknown or of the wrong type; all are listed.
    """
    headers = dict(letter.message.headers)
    event = codec.validate(registry.resolve(letter.event, codec.version_of(headers)), payload)
    spec = spec_of(type(event))
    headers[h.DATA_SCHEMA] = f"{spec.name}/v{spec.version}"
    headers[h.CONTENT_TYPE] = h.JSON
    key = event.event_key()
    if key is not None:
        headers[h.KEY] = h.quoted(key)
    message = replace(letter.message, headers=headers, body=event.event_body())
    return replace(letter, message=message, edited=True)


def per_second(rate: float | str) -> float:
    """Return a rate in events each second.

    Raises:
        ValueError: It isn't a number above 0, or one with its time, like ``"20/s"``.
    """
    match = _RATE.fullmatch(str(rate))
    if match is None or not float(match[1]):
        problem = f"{rate!r} isn't a rate; write '20/s', '100/m' or a number for each second"
        raise ValueError(problem)
    return float(match[1]) / seconds(f"1{match[2] or 's'}")


async def _each(letters: Letters) -> AsyncIterator[Letter]:
    if isinstance(letters, AsyncIterable):
        async for letter in letters:
            yield letter
    else:
        for letter in letters:
            yield letter


def _reception(
    letter: Letter, durables: Sequence[ConsumerView], subjects: Subjects
) -> tuple[str, bool]:
    """Return what is wrong with who would get it, and whether it can be sent nevertheless."""
    subject = _subject(letter, subjects)
    if subjects.event_name(subject) is None:
        original = letter.failure.original_subject
        return f"'{original}' is no event's subject, so it can't come back as an event", False
    name = f"{letter.failure.service}__{letter.failure.listener}"
    durable = next((one for one in durables if one.takes(subject) and one.durable == name), None)
    if durable is None:
        return f"nobody would get it: durable {name} isn't there any more", False
    if durable.paused:
        return f"{name} is paused, it gets the event when it goes on", True
    if not durable.waiting and not durable.ack_pending:
        return f"nobody works {name} now, it gets the event when it starts", True
    return "", True


async def _send(driver: JetStreamDriver, letter: Letter, unpark: str, clock: Clock) -> int:
    """Store the event, record it, and return which redrive it was."""
    subjects = driver.letterbox.subjects
    number = _last(letter) + 1
    while not await _is_stored(driver, _message(letter, number, unpark, subjects)):
        number += 1  # that one was sent without being recorded, with another payload
    done = Redrive(number, clock.now(), letter.edited)
    await driver.letterbox.record(letter.place, (*letter.redrives, done))
    return number


async def _is_stored(driver: JetStreamDriver, message: Message) -> bool:
    """Store a message; tell whether it, and not another one, is stored under its id."""
    receipt = await driver.publish(message)
    if not receipt.duplicate:
        return True
    stored = await driver.stored(receipt)
    if stored is None:
        return False
    same_id = h.lowered(stored.headers).get(h.ID) == message.headers.get(h.ID)
    return same_id and (stored.subject, stored.body) == (message.subject, message.body)


def _message(letter: Letter, number: int, unpark: str, subjects: Subjects) -> Message:
    headers = h.forwarded(letter.message.headers, without=_LEFT_BEHIND)
    headers[h.REDRIVE] = str(letter.failure.redrive + number)
    if unpark:
        headers[h.UNPARK] = unpark
    return Message(
        _subject(letter, subjects),
        headers,
        letter.message.body,
        id=f"redrive:{letter.number}:{number}",
    )


def _subject(letter: Letter, subjects: Subjects) -> str:
    return subjects.retry(letter.failure.service, letter.failure.listener, letter.event)


def _last(letter: Letter) -> int:
    return letter.redrives[-1].number if letter.redrives else 0
