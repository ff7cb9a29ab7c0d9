"""lcq wait: until tasks that were submitted have come to their end."""

from __future__ import annotations

from typing import Annotated

import typer

from lcq.cli.choice import chosen
from lcq.cli.examples import examples
from lcq.cli.progress import Watch, follow
from lcq.cli.session import INTERRUPTED, OK, JobsOption, JsonFlag, Session, SomeIds, run, session_of
from lcq.client import AsyncClient
from lcq.client.courier import Courier
from lcq.errors import LcqError
from lcq.lang import retold, tr
from lcq.places import places_of
from lcq.settling import folders_of, settle

app = typer.Typer()


@app.command(
    epilog=examples(
        "lcq wait 06ft3k", "lcq wait --job holiday --timeout 600", "lcq wait --job holiday --job wedding"
    )
)  # fmt: skip
def wait(
    context: typer.Context,
    ids: SomeIds = None,
    jobs: JobsOption = None,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", min=0, help="Default: for ever.")
    ] = None,
    as_json: JsonFlag = False,
) -> int:
    """Wait until tasks have ended, with a progress bar; tells what became of them."""
    session = session_of(context, as_json)
    try:
        return run(_wait(session, ids or [], jobs or [], timeout_s))
    except KeyboardInterrupt:
        session.output.talk("")
        session.output.talk(tr("interrupted: the tasks go on without you; the same command waits again"))
        return INTERRUPTED


async def _wait(session: Session, ids: list[str], jobs: list[str], timeout_s: float | None) -> int:
    async with session.client() as client:
        watch = Watch(await chosen(client, ids, jobs=jobs), job=jobs[0] if len(jobs) == 1 else "")
        if not watch.ids:
            session.output.talk(tr("nothing to wait for"))
            return OK
        await follow(watch, client, session.output, timeout_s)
        await _settle(session, client, watch, jobs)
    if session.output.as_json:
        session.output.document({"tasks": watch.ended})
    return watch.exit_code


async def _settle(session: Session, client: AsyncClient, watch: Watch, jobs: list[str]) -> None:
    """Have the manifests beside the results know what was waited for; also what had ended before."""
    places = [place for job in jobs for place in places_of(session.config.data_path, job)]
    try:
        courier = await Courier.of(client, session.config)
        folders = [*places, *folders_of(watch.ended)]
        await settle(client, folders, complain=session.output.retell, courier=courier)
    except LcqError as error:  # the results are there all the same
        why = retold(error.message)
        session.output.talk(tr("the manifest beside the results does not know of them yet: {why}", why=why))
