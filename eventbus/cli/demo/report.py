"""The demo's closing words: the table, one story, and where to look."""

from rich import box
from rich.console import Console
from rich.table import Table

from eventbus.cli.demo.account import Account, Row
from eventbus.cli.demo.scrape import Buckets
from eventbus.cli.demo.system import System

__all__ = ("places", "table")

_COLUMNS = ("event", "emitted", "to handle", "handled", "retried", "dead letters", "p50", "p99")


def table(account: Account) -> Table:
    """Return the account as a table, with its sums below."""
    made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_footer=True)
    for column, total in zip(_COLUMNS, _cells(_total(account)), strict=True):
        right = column != _COLUMNS[0]
        made.add_column(column, total, justify="right" if right else "left", no_wrap=True)
    for row in account.rows:
        made.add_row(*_cells(row), style="yellow" if row.dead else "")
    return made


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
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def places(system: System, console: Console) -> None:
    """Print where everything is, as long as it runs."""
    for name, url in system.metrics.items():
        at = f"  http {system.http[name]}" if name in system.http else ""
        console.print(f"  {name:<13} metrics {url}{at}", soft_wrap=True)
    console.print(f"  {'nats-server':<13} {system.server.url}", soft_wrap=True)
    console.print(f"  {'audit':<13} sqlite3 {system.audit_database}", soft_wrap=True)
    console.print(f"  {'mails':<13} {system.maildir}", soft_wrap=True)
