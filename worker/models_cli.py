"""lcq models: list, pull, add, verify and rm of weights, at a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars
from rich.text import Text

from lcq.cli.examples import examples
from lcq.cli.output import Column, Output, duration
from lcq.cli.session import OK, SOME_FAILED, JsonFlag, run, session_of
from lcq.lang import N, retold, tr
from lcq.wire import CostStats
from worker.weights import Manifest, ModelState, Progress, WeightStore

app = typer.Typer()

ModelName = Annotated[str, typer.Argument(metavar="NAME", help="A model, as 'lcq models list' names it.")]
_WORDS = {
    "installed": (N("installed"), "green"),
    "damaged": (N("damaged"), "red"),
    "partial": (N("begun"), "yellow"),
    "absent": (N("not installed"), "bright_black"),
}


@app.command("list", epilog=examples("lcq models list", "lcq models list --json"))
def list_models(context: typer.Context, as_json: JsonFlag = False) -> int:
    """List the models whose weights are here, and those whose weights could be brought."""
    store, output = _store(context, as_json)
    _show(store.states(), output, empty=tr("no models are known: set models.sources, or see 'lcq models add --help'"))
    return OK


@app.command(epilog=examples("lcq models pull lama"))
def pull(context: typer.Context, name: ModelName, as_json: JsonFlag = False) -> int:
    """Download the weights of a model, check them, and install them. Begun downloads are gone on with."""
    store, output = _store(context, as_json)
    try:
        with _bars(output) as progress:
            manifest = store.pull(name, progress=progress)
    except KeyboardInterrupt:
        output.talk(tr("what has come is kept: 'lcq models pull {name}' goes on from there", name=name))
        raise
    _tell_installed(manifest, output)
    return OK


@app.command(epilog=examples("lcq models add big-lama.zip --name lama", "lcq models add ~/Downloads/big-lama.pt"))
def add(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .ckpt, .pt, .pth, .safetensors or .zip.")],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Which model it is; default: by its checksum.")
    ] = None,
    as_json: JsonFlag = False,
) -> int:
    """Install a weight file that is here already. Nothing in it is run; it must be one that the settings allow."""
    store, output = _store(context, as_json)
    with _bars(output) as progress:
        manifest = store.add(file, name, progress=progress)
    _tell_installed(manifest, output)
    return OK


@app.command(epilog=examples("lcq models verify", "lcq models verify lama"))
def verify(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only this one; default: all.")] = None,
    as_json: JsonFlag = False,
) -> int:
    """Read installed weights and hold them against their checksums. Exit code 1: some are damaged."""
    store, output = _store(context, as_json)
    found = store.verify(name)
    _show(found, output, empty=tr("no weights are installed"))
    damaged = [state.name for state in found if state.state != "installed"]
    for each in damaged:
        output.talk(tr("to replace {name}: lcq models rm {name}, then lcq models pull {name}", name=each))
    return SOME_FAILED if damaged else OK


@app.command(epilog=examples("lcq models stats", "lcq models stats lama --json"))
def stats(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Only this model; default: all.")] = "",
    as_json: JsonFlag = False,
) -> int:
    """Show what the cluster predicts that tasks take, by model, precision, engine and class of device, and how well.

    Told by the last attempts that were completed there. ERROR: half of the predictions were off by no more than the
    first, nine of ten by no more than the second. UNDER P90: how many took no longer than their P90; 90 % is right.
    HELD: of the device's memory, the median; how many held no more than predicted; how many ran out of it.
    NOW: what is predicted now; where nothing was completed yet (N 0), by what LCQ came with: measured, or an estimate.
    """
    session = session_of(context, as_json)

    async def ask() -> tuple[CostStats, ...]:
        async with session.client() as client:
            return await client.costs(name)

    costs = run(ask())
    if session.output.as_json:
        session.output.document({"costs": costs})
        return OK
    session.output.table(
        [
            Column("MODEL", whole=True),
            Column("PRECISION"),
            Column("DEVICE"),
            Column("N", right=True, whole=True),
            Column("PREDICTED P50/P90", right=True, whole=True),
            Column("TOOK P50/P90", right=True, whole=True),
            Column("ERROR P50/P90", right=True, whole=True),
            Column("UNDER P90", right=True, whole=True),
            Column("HELD/PREDICTED", right=True, whole=True),
            Column("NOW"),
        ],
        map(_told_cost, costs),
        empty=tr("nothing has been learned yet: predictions are those that LCQ came with"),
    )
    return OK


_BASIS = {"measured": N(" (shipped, measured)"), "estimate": N(" (an estimate)")}


def _told_cost(one: CostStats) -> tuple[str, ...]:
    load = tr(" + {span} to load", span=duration(one.load_s)) if one.load_s else ""
    now = f"{one.fixed_s:.3f} s + {one.s_per_megapixel:.3f} s/MP{load}{tr(_BASIS.get(one.basis, ''))}"
    if not one.attempts:
        device = (one.model, one.precision or tr("default"), one.device_class)
        return (*device, "0", "", "", "", "", _told_memory(one), now)
    return (
        one.model,
        one.precision or tr("default"),
        one.device_class,
        str(one.attempts),
        f"{duration(one.predicted_p50_s)} / {duration(one.predicted_p90_s)}",
        f"{duration(one.actual_p50_s)} / {duration(one.actual_p90_s)}",
        f"{one.error_p50:.0%} / {one.error_p90:.0%}",
        f"{one.under_p90:.0%}",
        _told_memory(one),
        now,
    )


def _told_memory(one: CostStats) -> str:
    if not one.peak_mib and not one.out_of_memory:
        return ""
    told = f"{one.peak_mib:,} / {one.predicted_mib:,} MiB" if one.predicted_mib else f"{one.peak_mib:,} MiB"
    if not one.memory_attempts:
        told += tr(" (shipped)")
    within = tr(", {share:.0%} within", share=one.held_within) if one.predicted_mib else ""
    return told + within + (tr(", {count} ran out", count=one.out_of_memory) if one.out_of_memory else "")


@app.command(epilog=examples("lcq models rm lama"))
def rm(context: typer.Context, name: ModelName, as_json: JsonFlag = False) -> int:
    """Delete the weights of a model, and what a begun download has brought. Runners that have them keep them."""
    store, output = _store(context, as_json)
    with _bars(output) as progress:
        store.remove(name, progress=progress)
    if output.as_json:
        output.document({"removed": name})
    else:
        output.say(tr("removed: {name}", name=name))
    return OK


def _store(context: typer.Context, as_json: bool) -> tuple[WeightStore, Output]:
    session = session_of(context, as_json)
    config = session.config
    return WeightStore(config.models_path, config.models, floor_mib=config.agent.disk.floor_mib), session.output


def _show(states: list[ModelState], output: Output, *, empty: str) -> None:
    if output.as_json:
        output.document({"models": [_facts(state) for state in states]})
        return
    output.table(
        [
            Column("MODEL", whole=True),
            Column("STATE", whole=True),
            Column("SIZE", right=True, whole=True),
            Column("ADDED", whole=True),
            Column("FROM"),
            Column("CHECKSUM"),
            Column("NOTE", wrapped=True),
        ],
        (
            (
                state.name,
                Text(tr(word), style=style),
                f"{state.manifest.weights_bytes / 2**20:.1f} MiB" if state.manifest else "",
                f"{state.manifest.added_at.astimezone():%Y-%m-%d %H:%M}" if state.manifest else "",
                _origin(state),
                _sum(state),
                retold(state.found),
            )
            for state in states
            for word, style in (_WORDS[state.state],)
        ),
        empty=empty,
    )


def _origin(state: ModelState) -> str:
    if state.manifest is not None:
        return state.manifest.origin
    return state.source.urls[0] if state.source is not None and state.source.urls else ""


def _sum(state: ModelState) -> str:
    if state.manifest is not None:
        return f"sha256:{state.manifest.sha256}"
    if state.source is None:
        return ""
    return f"sha256:{state.source.sha256}" if state.source.sha256 else f"md5:{state.source.md5}"


def _facts(state: ModelState) -> dict[str, Any]:
    return {
        "name": state.name,
        "state": state.state,
        "installed": state.manifest,
        "source": state.source,
        "found": state.found,
    }


def _tell_installed(manifest: Manifest, output: Output) -> None:
    if output.as_json:
        output.document(manifest)
        return
    size = f"{manifest.weights_bytes / 2**20:.1f} MiB"
    form = N("installed: {name} (LaMa, {channels} channels, {blocks} blocks, {size}), from {origin}")
    facts = {"channels": manifest.channels, "blocks": manifest.blocks, "origin": manifest.origin}
    output.say(tr(form, name=manifest.name, size=size, **facts))


@contextlib.contextmanager
def _bars(output: Output) -> Iterator[Progress]:
    """A bar a stage on stderr, where that is a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    console = output.talk_console
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:
        of_stage: dict[str, Any] = {}

        def progress(stage: str, done: int, total: int | None) -> None:
            if stage not in of_stage:
                of_stage[stage] = bars.add_task(retold(stage), total=total)
                if total is None and not console.is_terminal:
                    output.retell(stage)
            bars.update(of_stage[stage], completed=done, total=total)

        yield progress
