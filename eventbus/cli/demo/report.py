"""The demo's closing words: the table, one story, and where to look."""

from rich.table import Table

from eventbus.cli.demo.account import Account, Row
from eventbus.cli.demo.scrape import Buckets
from eventbus.cli.demo.system import System

__all__ = ("explained", "places", "table")

_COLUMNS = ("event", "emitted", "due", "handled", "retried", "dead", "p50", "p99")
_SHOWN = 5
"""How many dead letters are shown."""


def table(account: Account) -> Table:
    """Return the account as a table, with its sums below."""
    # No box: the table just fits into 80 columns.
    made = Table(box=None, header_style="bold", footer_style="bold", show_footer=True)
    for column, total in zip(_COLUMNS, _cells(_total(account)), strict=True):
        right = column != _COLUMNS[0]
        made.add_column(column, total, justify="right" if right else "left", no_wrap=True)
    for row in account.rows:
        made.add_row(*_cells(row), style="yellow" if row.dead else "")
    return made


def explained(account: Account) -> list[str]:
    """Return what the columns mean, and what is in the DLQ."""
    dead = account.dead_letters
    more = [f"and {len(dead) - _SHOWN} more dead letters"] if len(dead) > _SHOWN else []
    return [
        "due: emitted, times the listeners that take it; p50 and p99: from emit to handled, "
        "retries included",
        *(
            f"dead letter: {one.name} at {one.durable}, {one.reason}: {one.error}"
            for one in dead[:_SHOWN]
        ),
        *more,
    ]


def _total(account: Account) -> Row:
    rows = account.rows
    return Row(
        event="all",
        emitted=sum(one.emitted for one in rows),
        deliveries=sum(one.deliveries for one in rows),
        handled=sum(one.handled for one in rows),
        retried=sum(one.retried for one in rows),
        dead=sum(one.dead for one in rows),
        latency=sum((one.latency for one in rows), Buckets()),
    )


def _cells(row: Row) -> tuple[str, ...]:
    counts = (row.emitted, row.deliveries, row.handled, row.retried, row.dead)
    latency = (row.latency.quantile(share) for share in (0.5, 0.99))
    return (row.event, *(str(one) for one in counts), *(_ms(one) for one in latency))


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.{0 if seconds >= 0.1 else 1}f} ms"


def places(system: System) -> list[str]:
    """Return where everything is, as long as it runs."""
    lines: list[str] = []
    for name, url in sorted(system.metrics.items()):
        at = f"  http {system.http[name]}" if name in system.http else ""
        lines.append(f"  {name:<13} {url}{at}")
    return [
        *lines,
        f"  {'nats-server':<13} {system.server.url}",
        f"  {'audit trail':<13} {system.audit_database}",
        f"  {'mails':<13} {system.maildir}",
    ]
