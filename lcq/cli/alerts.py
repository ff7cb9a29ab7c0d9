"""lcq alerts: what needs people, and hearing nothing of it for a while."""

from __future__ import annotations

from typing import Annotated

import typer

from lcq.alerts.records import AlertRecord, Alerts, Silence
from lcq.cli.examples import examples
from lcq.cli.output import Column, Output, age, clock, duration
from lcq.cli.session import OK, SOME_FAILED, JsonFlag, Reason, Session, run, session_of
from lcq.lang import N, retold, tr
from lcq.spans import read_span
from lcq.wire import AlertsAnswer, RuleTold

app = typer.Typer()

RuleName = Annotated[str, typer.Argument(metavar="RULE", help="A rule's name: lcq alerts list --rules.")]
Subject = Annotated[
    str,
    typer.Option("--on", metavar="SUBJECT", help="Only of this queue, node or scheduler, as the list has it."),
]
_ALERTS = (
    Column(N("SEVERITY"), whole=True),
    Column(N("RULE"), whole=True),
    Column(N("ON"), spared=2),
    Column(N("SINCE"), right=True, whole=True),
    Column(N("WHAT"), wrapped=True),
    Column(N("SILENCED"), wrapped=True),
)
_RULES = (
    Column(N("RULE"), whole=True),
    Column(N("WHEN"), whole=True),
    Column(N("OVER"), right=True, whole=True),
    Column(N("FOR"), right=True, whole=True),
    Column(N("SEVERITY"), whole=True, spared=2),
    Column(N("TELLS"), wrapped=True),
    Column(N("SILENCED"), wrapped=True),
)
_RECEIVERS = (
    Column(N("RECEIVER"), whole=True),
    Column(N("KIND"), whole=True, spared=2),
    Column(N("WHERE")),
    Column(N("WAITING"), right=True, whole=True),
    Column(N("TROUBLE"), wrapped=True),
)


@app.command(name="list", epilog=examples("lcq alerts list", "lcq alerts list --rules", "lcq alerts list --json"))
def list_alerts(
    context: typer.Context,
    rules: Annotated[bool, typer.Option("--rules", help="Show the rules, and who is told, too.")] = False,
    as_json: JsonFlag = False,
) -> int:
    """List what needs you now, the worst first; silenced alerts last. Exit codes: 0 nothing, 1 something does."""
    return run(_list(session_of(context, as_json), rules))


async def _list(session: Session, rules: bool) -> int:
    output = session.output
    async with session.client() as client:
        answer = await client.alerts()
    known = Alerts(alerts=answer.alerts, silences=answer.silences, now_ms=answer.now_ms)
    code = SOME_FAILED if known.firing else OK
    if output.as_json:
        output.document(answer)
        return code
    silenced = [(one, silence) for one in known.alerts if one.is_firing and (silence := known.silence_of(one))]
    rows = [_row(one, None) for one in known.firing] + [_row(one, silence) for one, silence in silenced]
    output.table(_ALERTS, rows, empty=tr("nothing needs you"))
    if rules:
        _show_rules(answer, known, output)
    return code


def _row(alert: AlertRecord, silence: Silence | None) -> tuple[str, ...]:
    said = "" if silence is None else _told_silence(silence)
    return tr(alert.severity), alert.rule, alert.subject, age(alert.since_ms), retold(alert.text), said


def _told_silence(silence: Silence) -> str:
    told = tr("until {time} by {actor}", time=clock(silence.until_ms)[:-7], actor=silence.actor)
    return f"{told}: {silence.reason}" if silence.reason else told


def _show_rules(answer: AlertsAnswer, known: Alerts, output: Output) -> None:
    output.heading(tr("Rules"))
    by_rule = {one.rule: one for one in known.silences if not one.subject}
    output.table(
        _RULES,
        (
            (
                one.name,
                one.when,
                _told_limit(one) if one.enabled else tr("off"),
                duration(one.for_s),
                tr(one.severity),
                ", ".join(one.notify) or tr("consoles only"),
                _told_silence(by_rule[one.name]) if one.name in by_rule else "",
            )
            for one in answer.rules
        ),
        empty=tr("no rules: alerting.enabled is false"),
    )
    output.heading(tr("Receivers"))
    output.table(
        _RECEIVERS,
        ((one.name, one.kind, one.to, str(one.waiting), retold(one.trouble)) for one in answer.receivers),
        empty=tr("nobody is told: name some in alerting.receivers (docs/alerts.md)"),
    )


def _told_limit(rule: RuleTold) -> str:
    if rule.unit == "seconds":
        return duration(rule.over)
    return f"{rule.over:.0%}" if rule.unit == "share" else f"{rule.over:g}"


@app.command(
    epilog=examples("lcq alerts silence node-down 2h --on gpu-3 --reason 'new GPU'", "lcq alerts silence queue-age 1d")
)
def silence(
    context: typer.Context,
    rule: RuleName,
    time: Annotated[str, typer.Argument(metavar="TIME", help="For how long, such as 30m, 2h, 1d.")],
    on: Subject = "",
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> int:
    """Let nobody be told of a rule for a while. Consoles go on showing its alerts, as silenced."""
    session, span = session_of(context, as_json), read_span(time, named="TIME")

    async def work() -> int:
        async with session.client() as client:
            act = await client.silence(rule, seconds=span.total_seconds(), subject=on, reason=reason)
        _told_done(
            session.output,
            tr("silenced for {time}: {rule}", time=duration(span.total_seconds()), rule=_named(rule, on)),
            act,
        )
        return OK

    return run(work())


@app.command(epilog=examples("lcq alerts unsilence node-down --on gpu-3"))
def unsilence(
    context: typer.Context, rule: RuleName, on: Subject = "", reason: Reason = "", as_json: JsonFlag = False
) -> int:
    """Let a silenced rule be heard again."""
    session = session_of(context, as_json)

    async def work() -> int:
        async with session.client() as client:
            act = await client.unsilence(rule, subject=on, reason=reason)
        _told_done(session.output, tr("heard again: {rule}", rule=_named(rule, on)), act)
        return OK

    return run(work())


def _named(rule: str, on: str) -> str:
    return tr("{rule}, on {on}", rule=rule, on=on) if on else rule


def _told_done(output: Output, words: str, act: str) -> None:
    if output.as_json:
        output.document({"act": act})
    else:
        output.say(words)
        output.talk(tr("'lcq undo {act}' takes it back, for 15 s", act=act))


@app.command(name="test", epilog=examples("lcq alerts test", "lcq alerts test ops"))
def send_test(
    context: typer.Context,
    receivers: Annotated[
        list[str] | None, typer.Argument(metavar="[RECEIVER]", help="Their names; default: all.")
    ] = None,
    as_json: JsonFlag = False,
) -> int:
    """Send receivers a notice of an alert that is none. Exit codes: 0 all took it, 1 not all."""
    session = session_of(context, as_json)

    async def work() -> int:
        async with session.client() as client:
            answer = await client.test_alerts(receivers or ())
        if session.output.as_json:
            session.output.document(answer)
        else:
            for name in answer.told:
                session.output.say(tr("{name} was told", name=name))
            for name, trouble in answer.troubles.items():
                session.output.complain(tr("{name} was not told: {trouble}", name=name, trouble=retold(trouble)))
        return SOME_FAILED if answer.troubles else OK

    return run(work())
