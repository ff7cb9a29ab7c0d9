"""lcq functions: the serverless functions that nodes call; lcq functions warm wakes some."""

from __future__ import annotations

from typing import Annotated

import typer

from lcq.cli.asking import ask_and_tell
from lcq.cli.examples import examples
from lcq.cli.instances import told_start
from lcq.cli.output import Column, Output, time_of_day
from lcq.cli.session import OK, JsonFlag, Reason, session_of
from lcq.client import AsyncClient
from lcq.function_state import told_standing, told_why
from lcq.functions import FunctionRecord
from lcq.lang import ntr, retold, tr
from lcq.models import FunctionReading
from lcq.wire import FunctionsAnswer, WarmFunctionAnswer

app = typer.Typer()

Name = Annotated[str, typer.Argument(metavar="NAME", help="As 'lcq functions' shows it.")]
Count = Annotated[
    int,
    typer.Argument(
        metavar="[N]", min=0, max=1024, show_default=False, help="How many instances; default: as its settings want."
    ),
]


@app.callback(
    invoke_without_command=True,
    epilog=examples("lcq functions", "lcq functions --json", "lcq functions warm burst 4"),
)
def functions(context: typer.Context, as_json: JsonFlag = False) -> int:
    """List the serverless functions that nodes call: what each is at, its warm instances, what it costs."""
    if context.invoked_subcommand is not None:
        return OK
    return ask_and_tell(session_of(context, as_json), AsyncClient.functions, _tell)


def _tell(found: FunctionsAnswer, output: Output) -> None:
    output.table(
        [
            Column("FUNCTION", whole=True),
            Column("NODE", whole=True),
            Column("CALLS", right=True, whole=True),
            Column("WARM", right=True, whole=True),
            Column("COLD", right=True, whole=True),
            Column("START", right=True, whole=True, spared=2),
            Column("MODELS", spared=3),
            Column("THIS HOUR", right=True, whole=True),
            Column("STATE", wrapped=True),
        ],
        ((*_row(one), _money(one.spent_hour, found.currency), _state(one)) for one in found.functions),
        empty=tr("no node calls a function: see agent.functions in docs/serverless.md"),
    )


def _row(one: FunctionRecord) -> tuple[str, ...]:
    return (
        one.function,
        one.node,
        f"{one.in_flight}/{one.calls_at_once}",
        f"{one.warm}/{one.prewarm}" if one.prewarm else str(one.warm),
        str(one.cold),
        told_start(one.start_s) if one.cold else "",
        ", ".join(one.models),
    )


def _money(amount: float, currency: str) -> str:
    return f"{amount:,.4f} {currency}".strip()


def _state(one: FunctionRecord) -> str:
    reading = FunctionReading(in_vain=one.in_vain, rests_until_ms=one.rests_until_ms, trials=one.trials)
    standing = told_standing(reading, time_of_day)
    if one.rests_until_ms is not None:
        return told_why(one.why, standing)
    if one.why:
        return tr("takes no work: {fault}", fault=retold(one.why))
    state = standing or tr("takes work")
    return tr("{state}; it was not woken: {failure}", state=state, failure=one.not_woken) if one.not_woken else state


@app.command(epilog=examples("lcq functions warm burst", "lcq functions warm burst 4 --reason 'the shoot is at ten'"))
def warm(
    context: typer.Context,
    name: Name,
    count: Count = 0,
    node: Annotated[str, typer.Option("--node", metavar="NODE", help="By this node; default: any that calls it.")] = "",
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="The model to load; default: the one that takes longest.")
    ] = "",
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> int:
    """Wake instances of a function, so that its next calls find a model loaded; paid for as calls are."""

    def tell(told: WarmFunctionAnswer, output: Output) -> None:
        output.say(
            ntr(
                "node {node} wakes {n} instance of {name}, with {model}",
                "node {node} wakes {n} instances of {name}, with {model}",
                told.count,
                node=told.node,
                name=name,
                model=told.model,
            )
        )
        output.talk(
            tr("'lcq functions' shows how many are warm, and what the last ones failed of; less money wakes fewer")
        )

    return ask_and_tell(
        session_of(context, as_json),
        lambda client: client.warm_function(name, count, node=node, model=model, reason=reason),
        tell,
    )
