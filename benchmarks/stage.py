"""A small real cluster at work, to look at: the stage of the console's pictures.

    python -m benchmarks.stage [--minutes M]     # until ctrl-c, or for so long; says how to open a console on it

Of real processes on this machine: a scheduler, agents with a key each, a function that one of them calls (and another
that is away), schedules, the sample photos of four customers, files that cannot be cleaned, and what operators do about
that. Made up are the GPUs (tests/fake_gpu.py, so gcc is needed), how long they take (benchmarks/stage_engine.py) and
what a call costs; what is cleaned is really cleaned. All run at the machine's lowest priority.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from benchmarks.stage_engine import BASE_MIB, MIB_A_MEGAPIXEL, VARIABLE, StageEngine
from lcq.client import Client
from lcq.config import DistributedConfig
from lcq.embedded import PrivateServer
from lcq.errors import LcqError
from lcq.key_record import KeyRole
from lcq.keyring import Credential, KeyPair, ServerKeys, agent_file, write_credential, write_server_keys
from lcq.models import NodeStatus, Privacy, Task, TaskPriority, TaskRecord, TaskStatus, TaskType
from lcq.sockets import new_key_pair
from tests.cluster import Cluster, free_port, running_cluster
from tests.engines import install_engines
from tests.fake_gpu import FakeGpu, FakeGpus
from tests.functions import functions_framework

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "sample-config"
PHOTOS = Path("/srv/photos")
CLUSTER = "atelier"
_SETTINGS = """
context: NAME
contexts:
  NAME:
    scheduler_host: 127.0.0.1
    zeromq: {control_port: PORT, curve: always, key_file: "KEY"}
    redis: {url: "URL"}
    data_dir: "DATA"
"""
_CLUSTER_SETTINGS = """
schedules:
  press-inbox:
    {cron: "*/5 * * * *", inputs: ["PHOTOS/press-7/inbox"], out: "PHOTOS/press-7/clean", again: true, model: restore,
     user: press-7, priority: high}
  studio-share: {cron: "*/2 * * * *", inputs: ["PHOTOS/studio-c/incoming"], model: restore, user: studio-c}
  archive-nightly:
    {cron: "30 2 * * mon-fri", timezone: Europe/Berlin, inputs: ["PHOTOS/archive/1962"], model: restore, priority: low}
  posters-weekly: {cron: "0 6 * * mon", timezone: Europe/Berlin, inputs: ["PHOTOS/press-7/posters"], user: press-7}
windows:
  office: {nodes: [cpu-01], open: "05:00-23:30", days: "", timezone: UTC}
serverless:
  budget: {hour: 2, day: 10, month: 100, job: 5, user_day: 3, currency: EUR}
"""
_PATIENCE_S = 1200.0  # a machine that is busy otherwise lets this wait
_ROUND_S = 20.0  # an act of submitting is told for each album in it: not so often that others' acts drown
_CARDS = {
    "4090": FakeGpu("", name="NVIDIA GeForce RTX 4090", total_mib=24564, power_limit_w=450.0),
    "l40s": FakeGpu("", name="NVIDIA L40S", total_mib=46068, power_limit_w=350.0),
    "3080": FakeGpu("", name="NVIDIA GeForce RTX 3080", total_mib=10240, power_limit_w=320.0),
}


@dataclass(frozen=True)
class Host:
    """A machine of the stage: its GPUs by their kinds, and its slots on the CPU (0: none is offered)."""

    name: str
    cards: tuple[str, ...] = ()
    cpu_slots: int = 0
    calls: bool = False  # it calls the functions, and does nothing else


HOSTS = (
    Host("gpu-01", ("4090", "4090")),
    Host("gpu-02", ("4090",)),
    Host("gpu-03", ("l40s",)),
    Host("gpu-04", ("3080",)),
    Host("cpu-01", cpu_slots=2),
    Host("cloud-01", calls=True),
)
_PEOPLE = {"maria": KeyRole.OPERATOR, "ivo": KeyRole.OPERATOR, "ingest": KeyRole.OPERATOR, "stage": KeyRole.VIEWER}
"""Whose acts these are; maria's key was made with the schedulers'."""
# a customer's folder, how wide its pictures are, their model, queue, priority and names
_ALBUMS = {
    "studio-a/portraits": (900, "lama-big", "gpu-high", TaskPriority.NORMAL, "portrait-{:03}"),
    "press-7/friday": (1600, "lama-big", "gpu-high", TaskPriority.HIGH, "IMG_{:04}"),
    "studio-b/product-shots": (700, "mat-512", "gpu-medium", TaskPriority.NORMAL, "sku-{:05}"),
    "archive/1962": (0, "restore", "cpu-light", TaskPriority.LOW, "box12-{:03}"),
    "press-7/posters": (3200, "lama-big", "gpu-high", TaskPriority.HIGH, "poster_{:02}"),
    "press-7/web": (0, "restore", "serverless", TaskPriority.NORMAL, "web_{:03}"),
    "studio-a/contacts": (0, "restore", "serverless", TaskPriority.NORMAL, "contact-{:03}"),
}


class Gpus:
    """The GPUs of a host: how busy and how hot each is follows from what runs there."""

    def __init__(self, host: Host, folder: Path, number: int) -> None:
        folder.mkdir(parents=True)
        self._fake = FakeGpus(folder)
        self._random = random.Random(number)
        self._cards = [
            replace(_CARDS[kind], uuid=f"GPU-{number}{place}3f9a10-5be2-4c07-9d61-0000000000{number}{place}",
                    bus=f"0000:{place + 1:02x}:00", free_mib=_CARDS[kind].total_mib - 350)
            for place, kind in enumerate(host.cards)
        ]  # fmt: skip
        self._fake.set(self._cards)

    @property
    def environment(self) -> dict[str, str]:
        return self._fake.environment

    def follow(self, running: list[TaskRecord]) -> None:
        """Be as a GPU would be that runs these."""
        shown = []
        for place, card in enumerate(self._cards):
            here = [one for one in running if one.device in (f"gpu{place}", card.uuid, "")]
            draw = self._random.uniform
            wanted = min(99, 88 + draw(-14, 11)) if here else draw(0, 3)
            megapixels = sum(one.size[0] * one.size[1] for one in here if one.size) / 1e6
            used = 420 + bool(here) * BASE_MIB + MIB_A_MEGAPIXEL * megapixels * draw(0.75, 1.0)
            before = card.temperature or 40
            limit = card.power_limit_w or 300.0
            card = replace(
                card, busy=round(wanted), free_mib=max(300, round(card.total_mib - used)),
                temperature=round(before + (34 + 0.42 * wanted + place * 3 - before) * 0.25 + draw(-0.6, 0.6)),
                power_w=round(limit * (0.12 + 0.0078 * wanted), 1),
            )  # fmt: skip
            self._cards[place] = card
            shown.append(card)
        self._fake.set(shown)


class Stage:
    """The cluster, the work that it is given, and what operators do."""

    def __init__(self, cluster: Cluster, folder: Path, photos: Path, function: str) -> None:
        """``function``: the address of one that can be called."""
        self.cluster, self.folder, self.photos = cluster, folder, photos
        self._server = KeyPair(*new_key_pair())
        self._functions = {
            name: {"url": url, "models": {"restore": 4.0}, "concurrency": 2, "timeout_s": 60, "price_s": 0.0018,
                   "price_call": 0.0004}
            for name, url in (("burst", function), ("reserve", f"http://127.0.0.1:{free_port()}"))
        }  # fmt: skip
        self._gpus = {host.name: Gpus(host, folder / host.name, number) for number, host in enumerate(HOSTS, 1)}
        self._numbers = {album: itertools.count(11) for album in _ALBUMS}
        self._over = threading.Event()
        self.began = time.monotonic()

    # ------------------------------------------------------------ its scenery

    def prepare(self) -> None:
        """The photos, as wide as their customers send them, and their masks."""
        for album, (width, *_) in _ALBUMS.items():
            for kind in ("photos", "masks"):
                for source in sorted((SAMPLES / kind).iterdir()):
                    target = self.folder / "sources" / album / kind / source.name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with Image.open(source) as image:
                        size = (width, width * image.height // image.width) if width else image.size
                        way = Image.Resampling.NEAREST if kind == "masks" else Image.Resampling.LANCZOS
                        image.resize(size, way).save(target, quality=88)

    def _new_key(self, path: Path, name: str) -> str:
        """A key of that name, kept there; its public half."""
        pair = KeyPair(*new_key_pair())
        place = f"127.0.0.1:{self.cluster.control_port}"
        write_credential(path, Credential(pair, (self._server.public,), (place,), name))
        return pair.public

    def key_file(self, name: str) -> Path:
        return self.folder / "keys" / f"{name}.json"

    def _enrol(self) -> None:
        """A key for everybody; a host is invited that has not come yet."""
        with self.client("maria") as maria:
            for name, role in _PEOPLE.items():
                if name != "maria":
                    maria.enrol_key(self._new_key(self.key_file(name), name), name=name, role=role)
            for host in HOSTS:
                key = self._new_key(agent_file(self.cluster.config, host.name), host.name)
                maria.enrol_key(key, name=host.name, role=KeyRole.AGENT)
            for name, role in (("accounts", KeyRole.VIEWER), ("ivo-laptop", KeyRole.OPERATOR)):
                maria.enrol_key(self._new_key(self.key_file(name), name), name=name, role=role)

    def _revoke(self) -> None:
        with self.client("ivo-laptop") as lost:
            lost.info()
        with self.client("ivo") as ivo:
            key = next(one.key for one in ivo.keys().keys if one.name == "ivo-laptop")
            ivo.revoke_key(key, reason="left on the train")
            ivo.invite_key(new_key_pair()[0], becomes=KeyRole.AGENT, node="gpu-05", span_s=7200)
        with contextlib.suppress(LcqError), self.client("ivo-laptop", timeout_s=5) as lost:
            lost.info()

    def start(self) -> None:
        owner = self._new_key(self.key_file("maria"), "maria")
        write_server_keys(self.cluster.config, ServerKeys(self._server, owners={owner: "maria"}))
        self.cluster.start_scheduler()
        self._enrol()
        for host in HOSTS:
            wishes = {f"gpu{place}": {"slots": 1 + (kind == "l40s")} for place, kind in enumerate(host.cards)}
            if not host.cpu_slots:
                wishes["cpu"] = {"enabled": False}
            command = [sys.executable, "-m", "worker.cli", "--scheduler", f"127.0.0.1:{self.cluster.control_port}"]
            command += ["--name", host.name, *(["--slots", str(host.cpu_slots)] if host.cpu_slots else [])]
            environment = self._gpus[host.name].environment | {"LCQ_AGENT__DEVICES": json.dumps(wishes)}
            if host.calls:
                environment["LCQ_AGENT__FUNCTIONS"] = json.dumps(self._functions)
            self.cluster._start(host.name, command, environment)
        with self.client("maria") as client:
            self._until(
                lambda: sum(node.status is NodeStatus.ONLINE for node in client.nodes()) == len(HOSTS),
                "the nodes to come",
            )

    @staticmethod
    def _until(condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(LcqError):  # such as that Redis, at the lowest priority too, was not quick enough
                if condition():
                    return
            time.sleep(1)
        raise TimeoutError(f"waited in vain for {what}")

    def client(self, actor: str, *, timeout_s: float = 120) -> Client:
        """One that shows that person's key."""
        config = DistributedConfig.model_validate({
            "data_dir": self.folder / "console",
            "zeromq": {"control_port": self.cluster.control_port, "curve": "always", "key_file": self.key_file(actor)},
        })  # fmt: skip
        place = f"127.0.0.1:{self.cluster.control_port}"
        return Client(config, scheduler=place, actor=actor, timeout_s=timeout_s)

    # ------------------------------------------------------------ its work

    def a_task(self, album: str, *, kind: str = "") -> Task:
        """The next of an album. ``kind``: what is wrong with it, if anything: "cut", "mask", "missing"."""
        _, model, _, priority, pattern = _ALBUMS[album]
        number = next(self._numbers[album])
        sources = sorted((self.folder / "sources" / album / "photos").iterdir())
        source = sources[number % len(sources)]
        name = pattern.format(number)
        image = self.photos / album / f"{name}{source.suffix}"
        mask = self.photos / album / "masks" / f"{name}.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        if kind == "cut":
            image.write_bytes(source.read_bytes()[: source.stat().st_size * 2 // 3])
        elif kind != "missing" and not image.exists():
            os.link(source, image)
        if kind == "mask":
            Image.new("L", (64, 48), 255).save(mask)
        elif not mask.exists():
            os.link(self.folder / "sources" / album / "masks" / f"{source.stem}.png", mask)
        customer, _, folder = album.partition("/")
        return Task(
            task_type=TaskType.INPAINT, image_path=str(image), mask_path=str(mask),
            output_path=str(self.photos / album / "clean" / f"{name}.png"), user_id=customer, priority=priority,
            job=f"{customer}-{folder}" if customer != "studio-b" else None, config={"model": model}, max_retries=2,
            privacy=Privacy.EXPORTABLE if _ALBUMS[album][2] == "serverless" else Privacy.PRIVATE,
        )  # fmt: skip

    def give(self, client: Client, album: str, count: int, *, kind: str = "") -> None:
        client.submit_many([self.a_task(album, kind=kind) for _ in range(count)], queue=_ALBUMS[album][2])

    def _feed(self, client: Client, round_: int) -> None:
        """Keep so much of each kind of work waiting, with some that cannot be done now and then."""
        waiting = {queue.name: queue.counts.get(TaskStatus.QUEUED, 0) for queue in client.queues()}
        swell = 1 + 0.6 * (round_ // 12 % 2)  # more comes in at some times than at others
        for album, most in (
            ("press-7/friday", 9), ("studio-a/portraits", 17), ("studio-b/product-shots", 14), ("archive/1962", 60),
        ):  # fmt: skip
            queue = _ALBUMS[album][2]
            missing = round(most * swell) - waiting.get(queue, 0)
            if missing > 0:
                self.give(client, album, min(missing, 14))
        if waiting.get("serverless", 0) < 8:
            self.give(client, "press-7/web", 3)
            self.give(client, "studio-a/contacts", 1 + round_ % 2)
        if round_ % 11 == 3:
            self.give(client, "press-7/posters", 1)
        if round_ % 7 == 2:
            self.give(client, "press-7/friday", 1, kind="cut")
        if round_ % 5 == 1:
            self.give(client, "studio-b/product-shots", 1, kind="mask")
        if round_ % 9 == 4:
            self.give(client, "archive/1962", 2, kind="missing")

    def _follow(self) -> None:
        """Let the GPUs be as busy as what runs on them."""
        with self.client("stage") as client:
            while not self._over.wait(2.0):
                with contextlib.suppress(LcqError):
                    running = list(client.tasks(status=TaskStatus.PROCESSING))
                    for host in HOSTS:
                        self._gpus[host.name].follow([one for one in running if one.node == host.name])

    def _work(self, minutes: float) -> None:
        acts = self._acts(minutes)
        with self.client("ingest") as client:
            for round_ in itertools.count():
                with contextlib.suppress(LcqError):
                    self._feed(client, round_)
                    while acts and time.monotonic() - self.began > acts[0][0]:
                        acts.pop(0)[1]()
                if self._over.wait(_ROUND_S):
                    return

    @contextlib.contextmanager
    def at_work(self, minutes: float) -> Iterator[None]:
        """It works while the block lasts. Operators have done what they do by ``minutes``."""
        self.began = time.monotonic()
        threads = [
            threading.Thread(target=self._follow, daemon=True),
            threading.Thread(target=self._work, args=(minutes,), daemon=True),
        ]
        for one in threads:
            one.start()
        try:
            yield
        finally:
            self._over.set()
            for one in threads:
                one.join(60)

    # ------------------------------------------------------------ what operators do

    def _acts(self, minutes: float) -> list[tuple[float, Callable[[], None]]]:
        """When, in seconds from the beginning, and what."""
        script: list[tuple[float, Callable[[], None]]] = [
            (0.0, self._fill_the_inbox),
            (0.10, self._pause_the_weekly_one),
            (0.12, self._revoke),
            (0.15, self._prioritise_posters),
            (0.25, self._retry_what_was_missing),
            (0.40, self._pause_for_the_profile),
            (0.55, self._move_to_the_large_one),
            (0.65, self._cancel_duplicates),
            (0.75, self._acknowledge),
            (0.85, self._drain),
            (0.93, lambda: self.cluster.kill("gpu-04")),
        ]
        return [(share * minutes * 60, act) for share, act in script]

    def _some(self, client: Client, where: str, count: int) -> list[str]:
        return [record.id for record in itertools.islice(client.tasks(where), count)]

    def _fill_the_inbox(self) -> None:
        """What a schedule finds: pictures, each with its mask beside it."""
        sources, inbox = self.folder / "sources" / "archive/1962", self.photos / "press-7/inbox"
        inbox.mkdir(parents=True, exist_ok=True)
        for number, source in enumerate(sorted((sources / "photos").iterdir())):
            os.link(source, inbox / f"agency_{number:02}{source.suffix}")
            os.link(sources / "masks" / f"{source.stem}.png", inbox / f"agency_{number:02}_mask.png")

    def _pause_the_weekly_one(self) -> None:
        with self.client("ivo") as ivo:
            ivo.pause_schedule("posters-weekly", reason="the printer is away until the 7th")

    def _prioritise_posters(self) -> None:
        with self.client("ivo") as ivo:
            ids = self._some(ivo, "user:press-7 state:queued", 3)
            if ids:
                ivo.prioritise(ids, TaskPriority.URGENT, reason="the page closes at six")

    def _retry_what_was_missing(self) -> None:
        with self.client("maria") as maria:
            failed = list(itertools.islice(maria.tasks("state:failed cause:image_missing"), 4))
            for record in failed:
                image = Path(record.task.image_path)
                if not image.exists():
                    os.link(next((self.folder / "sources" / "archive/1962" / "photos").iterdir()), image)
            if failed:
                maria.retry([record.id for record in failed], reason="the share was not mounted")

    def _pause_for_the_profile(self) -> None:
        with self.client("ivo") as ivo:
            ivo.submit_many([self.a_task("studio-b/product-shots") for _ in range(6)], queue="gpu-low")
            ivo.pause("gpu-low", reason="colour profile is being checked, back at three")

    def _move_to_the_large_one(self) -> None:
        with self.client("maria") as maria:
            ids = self._some(maria, "state:failed cause:out_of_memory", 2)
            if ids:
                maria.retry(ids, reason="gpu-03 has 46 GB")
                maria.comment(ids[0], "1.8 doubled the tile buffer: roll back?")

    def _cancel_duplicates(self) -> None:
        with self.client("maria") as maria:
            ids = self._some(maria, "user:archive state:queued", 2)
            if ids:
                maria.cancel(ids, reason="sent twice")

    def _acknowledge(self) -> None:
        with self.client("maria") as maria:
            causes = [one for one in maria.dead().causes if one.code.startswith("mask")]
            if causes:
                note = "studio-b exports masks of another size; they know"
                maria.acknowledge(causes[0].code, causes[0].text, note=note)

    def _drain(self) -> None:
        with self.client("ivo") as ivo:
            ivo.drain("gpu-02", reason="its fan is loud, swap on Monday")


@contextlib.contextmanager
def on_stage(folder: Path) -> Iterator[Stage]:
    """The stage with its cluster running; all of it ends with the block."""
    os.nice(19)
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    install_engines(
        folder / "engines", "lcq_stage", "stage = lcq_stage:StageEngine",
        code=f"from {StageEngine.__module__} import StageEngine\n",
    )  # fmt: skip
    paths = [str(folder / "engines"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        "PYTHONPATH": os.pathsep.join(paths), VARIABLE: "1", "LCQ_DRILLS": "0", "LCQ_LEASES__BEAT_S": "3",
        "LCQ_LEASES__LEASE_S": "60", "LCQ_LEASES__LOST_AFTER_S": "5", "LCQ_RETRIES__BASE_S": "3",
        "LCQ_DISCOVERY__ENABLED": "0", "LCQ_CONFIG": str(folder / "cluster.yaml"), "LANG": "C.UTF-8",
        "LCQ_ZEROMQ__CURVE": "always", "LCQ_AGENT__RUNNER__ENVIRONMENT": json.dumps([VARIABLE]),
    }  # fmt: skip
    function = {"PYTHONPATH": environment["PYTHONPATH"], VARIABLE: "1"}
    with (
        _photos(folder) as photos,
        PrivateServer(folder / "redis") as server,
        functions_framework(folder / "function.log", workers=2, **function) as address,
        running_cluster(server.tcp_url, folder / "data", is_forked=False, **environment) as cluster,
    ):
        (folder / "cluster.yaml").write_text(_CLUSTER_SETTINGS.replace("PHOTOS", str(photos)))
        stage = Stage(cluster, folder, photos, address)
        text = _SETTINGS.replace("NAME", CLUSTER).replace("PORT", str(cluster.control_port))
        text = text.replace("URL", server.tcp_url).replace("DATA", str(folder / "console"))
        (folder / "lcq.yaml").write_text(text.replace("KEY", str(stage.key_file("maria"))))
        painter = threading.Thread(target=stage.prepare)
        painter.start()
        stage.start()
        painter.join()
        yield stage


@contextlib.contextmanager
def _photos(folder: Path) -> Iterator[Path]:
    """Where the photos are: as on a server, where there is nothing yet and we may; else beside the rest."""
    try:
        PHOTOS.mkdir(parents=True)
    except OSError:
        yield folder / "photos"
        return
    try:
        yield PHOTOS
    finally:
        shutil.rmtree(PHOTOS, ignore_errors=True)


def console_environment(stage: Stage) -> dict[str, str]:
    """What a console needs to see it."""
    return {"LCQ_CONFIG": str(stage.folder / "lcq.yaml"), "LCQ_DISCOVERY__ENABLED": "0"}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=60.0)
    minutes = arguments.parse_args().minutes
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # by way of all that has to be ended and removed
    with tempfile.TemporaryDirectory(prefix="lcq-stage-") as name, on_stage(Path(name)) as stage:
        told = " ".join(f"{name}={shlex.quote(value)}" for name, value in console_environment(stage).items())
        print(f"{told} lcq console", flush=True)
        with stage.at_work(min(minutes, 12)), contextlib.suppress(KeyboardInterrupt):
            time.sleep(minutes * 60)


if __name__ == "__main__":
    main()
