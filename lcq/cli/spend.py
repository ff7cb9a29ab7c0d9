"""lcq spend: what serverless functions have cost, and may."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from lcq.cli.asking import ask_and_tell
from lcq.cli.examples import examples
from lcq.cli.output import Column, Output
from lcq.cli.session import JsonFlag, session_of
from lcq.lang import N, tr
from lcq.wire import SpendAnswer, SpendBook

app = typer.Typer()

_NAMES = {"hour": N("this hour"), "day": N("today"), "month": N("this month")}
_USERS = 5  # of a day, those who spent most


@app.command(epilog=examples("lcq spend", "lcq spend --days 30", "lcq spend --job holiday", "lcq spend --json"))
def spend(
    context: typer.Context,
    days: Annotated[int, typer.Option("--days", metavar="N", min=0, max=400, help="Each of so many days, too.")] = 0,
    job: Annotated[str, typer.Option("--job", metavar="NAME", help="What the tasks of this job have cost, too.")] = "",
    as_json: JsonFlag = False,
) -> int:
    """Tell what serverless functions have cost this hour, today and this month (UTC), and what they may."""
    return ask_and_tell(session_of(context, as_json), lambda client: client.spend(days=days, job=job), _tell)


def _tell(told: SpendAnswer, output: Output) -> None:
    books = [*told.now, *([told.job] if told.job is not None else [])]
    _table(output, books, told.currency)
    if told.days:
        output.heading(tr("Days"))
        _table(output, told.days, told.currency)


def _table(output: Output, books: Iterable[SpendBook], currency: str) -> None:
    output.table(
        [
            Column("WHEN", whole=True),
            Column("SPENT", right=True, whole=True),
            Column("RESERVED", right=True, whole=True),
            Column("OF", right=True, whole=True),
            Column("CALLS", right=True, whole=True),
            Column("USERS", wrapped=True, spared=1),
        ],
        (
            (
                tr(_NAMES[one.name]) if one.name in _NAMES else one.name,
                _money(one.spent, currency),
                _money(one.reserved, currency) if one.reserved else "",
                _money(one.limit, currency) if one.limit is not None else "",
                f"{one.calls:,}",
                _users(one),
            )
            for one in books
        ),
        empty=tr("nothing was spent"),
    )


def _money(amount: float, currency: str) -> str:
    return f"{amount:,.4f} {currency}".strip()


def _users(book: SpendBook) -> str:
    """Those who spent most; as SPENT, without what is reserved."""
    spent = {user: amount - book.users_reserved.get(user, 0.0) for user, amount in book.users.items()}
    most = sorted(spent.items(), key=lambda one: (-one[1], one[0]))[:_USERS]
    return ", ".join(f"{user} {amount:,.4f}" for user, amount in most)
