"""lcq wait: until tasks that were submitted have come to their end."""

from __future__ import annotations

from typing import Annotated

import typer

from lcq.cli.choice import chosen
from lcq.cli.examples import examples
from lcq.cli.progress import Watch, follow
from lcq.cli.session import INTERRUPTED, OK, JobOption, JsonFlag, Session, SomeIds, run, session_of
from lcq.client import AsyncClient
from lcq.client.courier import Courier
from lcq.errors import LcqError
from lcq.lang import retold, tr
from lcq.places import places_of
from lcq.settling import folders_of, settle

app = typer.Typer()


@app.command(epilog=examples("lcq wait 06ft3k", "lcq wait --job holiday --timeout 600"))
def wait(
    context: typer.Context,
    ids: SomeIds = None,
    job: JobOption = "",
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", min=0, help="Default: for ever.")
    ] = None,
    as_json: JsonFlag = False,
) -> int:
    """Wait until tasks have ended, with a progress bar; tells what became of them."""
    session = session_of(context, as_json)
    try:
        return run(_wait(session, ids or [], job, timeout_s))
    except KeyboardInterrupt:
        session.output.talk("")
        session.output.talk(tr("interrupted: the tasks go on without you; the same command waits again"))
        return INTERRUPTED


async def _wait(session: Session, ids: list[str], job: str, timeout_s: float | None) -> int:
    async with session.client() as client:
        watch = Watch(await chosen(client, ids, job=job), job=job)
        if not watch.ids:
            session.output.talk(tr("nothing to wait for"))
            return OK
        await follow(watch, client, session.output, timeout_s)
        await _settle(session, client, watch, job)
    if session.output.as_json:
        session.output.document({"tasks": watch.ended})
    return watch.exit_code


async def _settle(session: Session, client: AsyncClient, watch: Watch, job: str) -> None:
    """Have the manifests beside the results know what was waited for; also what had ended before."""
    places = places_of(session.config.data_path, job) if job else []
    try:
        courier = await Courier.of(client, session.config)
        folders = [*places, *folders_of(watch.ended)]
        await settle(client, folders, complain=session.output.retell, courier=courier)
    except LcqError as error:  # the results are there all the same
        why = retold(error.message)
        session.output.talk(tr("the manifest beside the results does not know of them yet: {why}", why=why))
