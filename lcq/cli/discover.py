"""lcq discover: which schedulers are announced on the LAN, and which of them would be used."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lcq.announcement import Choice, Sighting
from lcq.cli.examples import examples
from lcq.cli.output import Column
from lcq.cli.session import OK, UNREACHABLE, JsonFlag, Session, run, session_of
from lcq.lang import retold, tr
from lcq.log import setup_logging

app = typer.Typer()


@app.command(epilog=examples("lcq discover", "lcq discover --seconds 10 --json"))
def discover(
    context: typer.Context,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, max=600, help="How long to listen.")] = 3.0,
    as_json: JsonFlag = False,
) -> int:
    """List the schedulers that are announced on the LAN (mDNS), which of them would be used, and why not the others."""
    return run(_discover(session_of(context, as_json), seconds))


async def _discover(session: Session, seconds: float) -> int:
    from lcq.discovery import Browser

    setup_logging(session.log_level or "error")  # what is ignored is in the table
    config = session.config
    async with Browser(config.discovery) as browser:
        sightings, choice = await browser.collect(seconds)
        where = browser.where
    output = session.output
    if output.as_json:
        output.document(_as_document(sightings, choice, where))
        return OK if choice.endpoints else UNREACHABLE
    output.table(
        [
            Column("CLUSTER", whole=True),
            Column("SCHEDULER"),
            Column("ADDRESS", whole=True),
            Column("VERSION", whole=True),
            Column("SIGNED", whole=True),
            Column("NOTE", wrapped=True),
        ],
        (_row(one) for one in sightings),
        empty=tr("nothing is announced at {where} (listened for {seconds:g} s)", where=where, seconds=seconds),
    )
    if len(choice.clusters) > 1:
        output.talk(
            tr("none is used: {why}; set discovery.cluster to the name or the id of one", why=retold(choice.why))
        )
    elif config.has_address:
        where = config.control_endpoint.removeprefix("tcp://")
        output.talk(tr("not looked for: {where} is configured", where=where))
    return OK if choice.endpoints else UNREACHABLE


def _row(one: Sighting) -> tuple[str, ...]:
    said = one.announcement
    if said is None:
        return ("", one.name, "", "", tr(one.signed.value), tr("ignored: {why}", why=retold(one.why)))
    addresses = one.endpoints or tuple(f"{address}:{said.port}" for address in said.addresses)
    return (
        f"{said.cluster} ({said.cluster_id})",
        said.scheduler,
        ", ".join(where.removeprefix("tcp://") for where in addresses),
        said.version,
        tr(one.signed.value),
        tr("ignored: {why}", why=retold(one.why)) if one.ignored else "",
    )


def _as_document(sightings: tuple[Sighting, ...], choice: Choice, where: str) -> dict[str, Any]:
    return {
        "listened_at": where,
        "used": list(choice.endpoints),
        "clusters": list(choice.clusters),
        "why_none": choice.why,
        "announcements": [
            {
                "name": one.name,
                "scheduler": said.scheduler if (said := one.announcement) else None,
                "cluster": said.cluster if said else None,
                "cluster_id": said.cluster_id if said else None,
                "addresses": list(said.addresses) if said else [],
                "port": said.port if said else None,
                "version": said.version if said else None,
                "protocol": said.protocol if said else None,
                "signed": one.signed.value,
                "endpoints": list(one.endpoints),
                "ignored": one.ignored.value if one.ignored else None,
                "why": one.why,
            }
            for one in sightings
        ],
    }
