"""``make fuzz``: every target in turn, for a time, in one process at a time.

    python -m tests.fuzz --seconds 60 [--target wire] [--seed 1]

Where atheris is installed (``pip install 'lcq[fuzz]'``) branches that are seen for the first time lead the search;
else inputs are mutated blindly. What is found lies in .fuzz/TARGET: the input, and beside it what happened.
``--again FILE`` reads one input once more.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import importlib.util
import json
import random
import re
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

_FOLDER = Path(".fuzz")
_MEMORY_MIB = 1536
_ADDRESS_SPACE = 6 * 2**30  # OpenBLAS and OpenCV reserve much that they never use
_LONGEST = 64 * 1024  # bytes of an input
_SLOW_S = 20  # what takes longer hangs
_LATE_S = 300.0  # beside its time, a target has as long to begin and to end


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--target", action="append", help="only this one; may be given several times")
    parser.add_argument("--seed", type=int, default=0, help="0: another one each time")
    parser.add_argument("--blind", action="store_true", help="without atheris")
    parser.add_argument("--again", type=Path, help="a file with an input of the one --target")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    told = parser.parse_args()
    names = told.target or list(_CODE)
    if told.again is not None:
        from tests.fuzz.targets import target_of

        with target_of(names[0]).open() as read:
            read(told.again.read_bytes())
        print("nothing was found")
        return
    seed = told.seed or random.randrange(1, 2**31)
    if told.alone:
        _one(names[0], told.seconds, seed, blind=told.blind)
        return
    is_blind = told.blind or importlib.util.find_spec("atheris") is None
    how = "blind: atheris is not installed" if is_blind else "led by branches (atheris)"
    print(f"{len(names)} targets, {told.seconds:g} s in all, seed {seed}, {how}", flush=True)
    found = sum(_apart(name, told.seconds / len(names), seed, blind=is_blind) for name in names)
    sys.exit(1 if found else 0)


def _apart(name: str, seconds: float, seed: int, *, blind: bool) -> int:
    """Fuzz one target in a process of its own, again after each finding. Answers how many findings there are now."""
    folder = _FOLDER / name
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + seconds
    runs = ended_oddly = 0
    while (left := until - time.monotonic()) > 1 and ended_oddly < 20:
        log = folder / "log"
        options = ["--alone", "--target", name, "--seconds", str(int(left)), "--seed", str(seed + ended_oddly)]
        command = [sys.executable, "-m", "tests.fuzz", *options, *(["--blind"] if blind else [])]
        with log.open("wb") as output:
            child = subprocess.Popen(command, stdout=output, stderr=output)
            try:
                code = child.wait(left + _LATE_S)
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGABRT)  # faulthandler then says where it stands
                code = child.wait()
                last = (folder / "last").read_bytes()
                (folder / f"timeout-{hashlib.sha256(last).hexdigest()[:16]}").write_bytes(last)
        said = log.read_text(errors="replace")
        counts = re.findall(r"^(?:stat::number_of_executed_units: |#)(\d+)", said, re.MULTILINE)
        runs += max(map(int, counts), default=0)
        if code == 0:
            break
        ended_oddly += 1
        (folder / f"end-{seed}-{ended_oddly}.log").write_text(said[-20_000:])
    kinds = ("crash-*", "oom-*", "timeout-*", "leak-*")
    found = sorted(path.name for kind in kinds for path in folder.glob(kind) if path.suffix != ".txt")
    with (_FOLDER / "runs.jsonl").open("a") as kept:
        kept.write(
            json.dumps({"target": name, "seconds": round(seconds), "seed": seed, "runs": runs, "found": found}) + "\n"
        )
    corpus = sum(1 for _ in (folder / "corpus").iterdir())
    print(f"{name:10} {runs:>10,} inputs, {corpus:,} kept for what they reach, {len(found)} findings", flush=True)
    for one in found:
        print(f"    {folder / one}", flush=True)
    return len(found)


def _one(name: str, seconds: float, seed: int, *, blind: bool) -> None:
    """In a process of its own, bounded in memory."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    (_blindly if blind else _led)(name, seconds, seed)


_seen: set[tuple[str, ...]] = set()


def _watched(name: str, read: Callable[[bytes], None], data: bytes) -> None:
    """Read one input; what it brings to light is kept, once for each place where it is raised."""
    with (_FOLDER / name / "last").open("wb", buffering=0) as last:  # should it never come back
        last.write(data)
    try:
        read(data)
    except Exception as error:  # noqa: BLE001 - each of them is what is looked for
        places = tuple(f"{step.filename}:{step.lineno}" for step in traceback.extract_tb(error.__traceback__)[-4:])
        if (type(error).__name__, *places, str(error)[-60:]) in _seen:
            return
        _seen.add((type(error).__name__, *places, str(error)[-60:]))
        kept = _FOLDER / name / f"crash-{hashlib.sha256(data).hexdigest()[:16]}"
        kept.write_bytes(data)
        kept.with_suffix(".txt").write_text(traceback.format_exc())


def _blindly(name: str, seconds: float, seed: int) -> None:
    from tests.fuzz.targets import mutated, target_of

    target = target_of(name)
    chance, seeds = random.Random(seed), target.seeds()
    until, runs = time.monotonic() + seconds, 0
    signal.signal(signal.SIGALRM, _hangs)
    with target.open() as read:
        while time.monotonic() < until:
            data = mutated(target, seeds, chance)
            runs += 1
            signal.alarm(_SLOW_S)
            _watched(name, read, data)
            signal.alarm(0)
    print(f"#{runs}")


def _hangs(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"an input takes longer than {_SLOW_S} s")


def _led(name: str, seconds: float, seed: int) -> None:
    import atheris

    code = _CODE[name]
    packages = sorted({module.partition(".")[0] for module in code})
    with atheris.instrument_imports(packages, exclude=_all_but(code), enable_loader_override=False):
        from tests.fuzz.targets import mutated, target_of

        target = target_of(name)
        seeds = target.seeds()
        opened = target.open()
        read = opened.__enter__()  # to the end of the process, which libFuzzer ends by itself
    corpus = _FOLDER / name / "corpus"
    for data in seeds:
        (corpus / hashlib.sha1(data).hexdigest()).write_bytes(data)

    def mutate(data: bytes, longest: int, number: int) -> bytes:
        chance = random.Random(number)
        if chance.random() < 0.5:  # libFuzzer keeps the shortest input that reaches a branch: whole ones would be lost
            return mutated(target, seeds, chance)[:longest]
        changed = target.mutate(data, chance) if chance.random() < 0.6 else atheris.Mutate(data, longest)
        return bytes(changed[:longest])

    options = [
        f"-max_total_time={int(seconds)}",
        f"-seed={seed}",
        f"-max_len={_LONGEST}",
        f"-timeout={_SLOW_S}",
        f"-rss_limit_mb={_MEMORY_MIB}",
        f"-artifact_prefix={_FOLDER / name}/",
        "-print_final_stats=1",
        "-len_control=0",
        str(corpus),
    ]
    atheris.Setup([sys.argv[0], *options], lambda data: _watched(name, read, bytes(data)), custom_mutator=mutate)
    atheris.Fuzz()


def _all_but(wanted: tuple[str, ...]) -> list[str]:
    """The modules of the packages of ``wanted`` that are not in it: to prepare each takes half a second."""
    found = []
    for package in sorted({name.partition(".")[0] for name in wanted}):
        spec = importlib.util.find_spec(package)
        for root in map(Path, spec.submodule_search_locations or () if spec is not None else ()):
            for file in root.rglob("*.py"):
                parts = (package, *file.relative_to(root).with_suffix("").parts)
                found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return [name for name in found if name not in wanted]


# By target, the modules whose branches lead the search: named here, as they have to be known before any is imported.
_CODE: dict[str, tuple[str, ...]] = {
    "wire": ("lcq.wire.frames", "lcq.wire.requests", "lcq.wire.nodes", "lcq.versions", "worker.protocol"),
    "desk": ("lcq.desk", "lcq.tasks", "lcq.nodes", "lcq.jobs", "lcq.query", "lcq.wire.acts", "lcq.wire.nodes"),
    "http": (
        "lcq.http.bytes", "lcq.http.guard", "lcq.http.iopaint", "lcq.http.lama_cleaner", "lcq.http.masks",
        "lcq.http.v1_blobs", "lcq.http.v1_tasks", "lcq.storage.uploads", "python_multipart.multipart",
        "starlette.formparsers",
    ),
    "once": ("lcq.http.v1_lent", "lcq.http.guard", "lcq.lent", "lcq.state.moves.calls", "lcq.storage.uploads"),
    "calls": ("worker.calls", "worker.function", "worker.engines.picture_bytes", "worker.engines.opencv"),
    "replies": (
        "worker.calls", "worker.engines.function", "worker.engines.endpoints", "worker.engines.picture_bytes",
        "lcq.lent", "lcq.spend",
    ),
    "pictures": (
        "lcq.image_size", "lcq.images", "lcq.thumbnails", "PIL.ImageFile", "PIL.PngImagePlugin", "PIL.JpegImagePlugin",
        "PIL.TiffImagePlugin", "PIL.WebPImagePlugin", "PIL.BmpImagePlugin", "PIL.GifImagePlugin",
    ),
    "weights": ("worker.archive", "worker.lama_tensors", "worker.inert_pickle", "zipfile"),
    "pickles": ("worker.inert_pickle",),
}  # fmt: skip


if __name__ == "__main__":
    main()
