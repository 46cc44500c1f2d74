"""The demo's second act: what it calls lost or doubled."""

from dataclasses import replace

import pytest

from eventbus.cli.demo.survival import Books, Survival

EVEN = Books(
    charges=("p-1", "p-2"),
    payments=("p-2", "p-1"),
    waiting=0,
    sent=("m-1",),
    mails=1,
    told=("m-1",),
    ticks=("09:00", "09:01"),
    unaudited=0,
)


def test_books_that_agree_have_no_problem() -> None:
    survival = Survival(2, 1, 1, EVEN)

    assert survival.problems() == []
    assert survival.lines()[3:] == [
        "  2 charges = 2 payment.*, each once",
        "  1 rows of mails = 1 email.sent = 1 mails, each once",
        "  2 statement.due, which two processes of payment declare, each once",
    ]


@pytest.mark.parametrize(
    ("books", "problem"),
    [
        (replace(EVEN, payments=("p-1",)), "1 charges without their events"),
        (replace(EVEN, payments=("p-1", "p-2", "p-2")), "1 events without their charges"),
        (replace(EVEN, sent=("m-1", "m-1"), mails=2), "1 rows of sent mails without their events"),
        (replace(EVEN, mails=2), "1 rows of sent mails and 2 mails"),
        (replace(EVEN, ticks=("09:00", "09:00")), "2 statement.due at 1 times"),
        (replace(EVEN, waiting=3), "3 events still wait in an outbox"),
        (replace(EVEN, unaudited=1), "1 events aren't in the audit trail"),
    ],
)
def test_what_is_lost_or_doubled_is_said(books: Books, problem: str) -> None:
    survival = Survival(2, 1, 1, books)

    assert survival.problems() == [problem]
    assert "each once" not in "".join(survival.lines())
