"""The command line: its help, its words, its exit codes; the other side is a socket that the test answers."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from lcq.autoscale import QueueScale, Scale
from lcq.background import BackgroundLoop
from lcq.cli import commands
from lcq.cli.main import app
from lcq.cli.output import age, clock, duration, tail, visible
from lcq.client import login_name
from lcq.config import DistributedConfig
from lcq.errors import JobNotFound, NodeNotFound, StateUnavailable, TransitionRefused
from lcq.function_state import LEFT_ALONE
from lcq.functions import functions_of
from lcq.http.access import digest_of
from lcq.ids import new_id
from lcq.models import (
    ActRecord,
    Attempt,
    Bill,
    Device,
    DeviceKind,
    DeviceReading,
    Ease,
    ErrorClass,
    Event,
    Failure,
    FunctionReading,
    JobSummary,
    ModelOffer,
    NodeCapability,
    NodeRecord,
    NodeStatus,
    Privacy,
    QueueConfig,
    QueueRecord,
    TaskResult,
    TaskStatus,
)
from lcq.reasons import WhyCode, because
from lcq.wire import (
    MAX_BATCH,
    Accepted,
    ActsAnswer,
    AsideAnswer,
    AutoscaleAnswer,
    BulkAnswer,
    Done,
    EventsAnswer,
    FindAnswer,
    ForeseeAnswer,
    Foreseen,
    FunctionsAnswer,
    HistoryAnswer,
    JobActAnswer,
    JobsAnswer,
    ListTasksAnswer,
    NodesAnswer,
    QueuesAnswer,
    Refusal,
    Refusals,
    SubmitAnswer,
    WhyAnswer,
    WhysAnswer,
)
from tests.logs import logging_kept
from tests.peer import Peer, Story, a_record, info

PROGRAM = typer.main.get_command(app)
COMMANDS: Mapping[str, Any] = PROGRAM.commands  # type: ignore[attr-defined]
EXPECTED = (
    "submit", "tasks", "task", "nodes", "node", "queues", "jobs", "job", "events", "wait", "cancel", "retry", "reroute",
    "prioritise", "pause", "resume", "drain", "activate", "quarantine", "release", "dead", "version", "up", "scheduler",
    "console", "demo", "models", "discover", "why", "autoscale", "label", "set", "stop",
    "acts", "undo", "comment", "log", "logs", "causes", "ack", "edit", "config", "token", "backup", "restore", "spend",
    "install-service", "uninstall-service",
    "report", "archive", "doctor", "schedules",
    "keys",
    "alerts", "functions", "deadline", "completion", "privacy",
)  # fmt: skip


class Answer:
    """What ``lcq`` said and did."""

    def __init__(self, *arguments: str, columns: int = 0) -> None:
        environment = {"COLUMNS": str(columns) if columns else None, "NO_COLOR": "1"}
        result = CliRunner().invoke(app, list(arguments), env=environment)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        self.code, self.out, self.talk = result.exit_code, result.stdout, result.stderr

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    def refuses(self, code: int, error: str, hint: str) -> None:
        """An error is one line and a hint, without a traceback; nothing is on stdout."""
        assert "Traceback" not in self.talk
        lines = [line for line in self.talk.splitlines() if line.startswith(("error:", "hint:"))]
        assert [line.partition(":")[0] for line in lines] == ["error", "hint"], self.talk
        assert re.search(error, lines[0]), lines
        assert re.search(hint, lines[1]), lines
        assert (self.code, self.out) == (code, "")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    with logging_kept():
        yield


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A scheduler's socket on the background loop; the test says how it answers."""
    held = BackgroundLoop.shared().hold(
        Peer(info=lambda ask: info("1-0"), note_job=lambda ask: Done(), jobs=lambda ask: JobsAnswer()).listening()
    )
    yield held.value
    held.release()


def lcq(peer: Peer, *arguments: str, columns: int = 0) -> Answer:
    return Answer("--scheduler", peer.endpoint, *arguments, columns=columns)


# ---------------------------------------------------------------- help and usage


def test_all_commands_are_there() -> None:
    assert sorted(COMMANDS) == sorted(EXPECTED)


@pytest.mark.parametrize("module", commands._MODULES)
def test_the_table_of_commands_names_all_that_a_module_has(module: str) -> None:
    app = importlib.import_module(f"lcq.cli.{module}").app
    assert sorted(typer.main.get_group(app).commands) == sorted(commands._MODULES[module])


def test_a_command_that_is_used_loads_no_other() -> None:
    there = commands.Commands()
    there.get("version")
    assert list(there.loaded) == ["version"]


@pytest.mark.parametrize("name", EXPECTED)
def test_the_help_of_every_command_has_an_example_that_it_understands(name: str) -> None:
    shown = Answer(name, "--help", columns=200)
    assert shown.code == 0
    assert "Example" in shown.out
    examples = [line.strip() for line in shown.out.splitlines() if line.strip().startswith("lcq ")]
    assert examples
    for example in examples:
        words = shlex.split(example.partition("|")[0])[1:]
        words = words[words.index(name) :]  # global options may stand before it
        COMMANDS[name].make_context(name, words[1:], resilient_parsing=False)


def test_no_arguments_show_the_help() -> None:
    shown = Answer()
    assert "Usage: lcq" in shown.out + shown.talk


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["frobnicate"], "no such command 'frobnicate'", "lcq --help"),
        (["tasks", "--bogus"], "no such option: --bogus", "lcq tasks --help"),
        (["tasks", "--status", "sleeping"], "'--status': 'sleeping' is not one of 'pending'", "lcq tasks --help"),
        (["submit", "absent.jpg", "--deadline", "soon"], "'soon' is no moment", "17:30"),
        (["tasks", "--limit", "many"], "--limit.*valid integer", "lcq tasks --help"),
        (["submit"], "missing argument", "lcq submit --help"),
        (["--scheduler", "no port:x", "tasks"], "not the address of a scheduler", "HOST:PORT"),
        (["--config", "absent.yaml", "tasks"], "cannot read the configuration absent.yaml", "--config"),
        (["cancel"], "say which tasks", "lcq tasks"),
        (["cancel", "06ft", "--job", "x"], "say which tasks", "lcq tasks"),
        (["retry", "06ft", "--failed"], "either ids or --failed", "--job"),
        (["reroute", "06ft"], "say where to", "lcq queues"),
        (["events", "--since", "yesterday"], "not a span of time", "10m"),
        (["submit", "absent.jpg"], "absent.jpg is not there", "nothing was submitted"),
        (["nodes", "--scheduler", "x:1"], "--scheduler belongs before 'nodes'", "lcq --scheduler x:1 nodes$"),
        (
            ["--lang", "en", "keys", "rotate", "--context=my house", "--server", "--patience", "3"],
            "--context belongs before 'keys'",
            "lcq --lang en '--context=my house' --patience 3 keys rotate --server$",
        ),
        (["nodes", "--config"], "--config belongs before 'nodes'", "lcq --config FILE nodes$"),
        (["console", "--lang=en"], "--lang belongs before 'console'", "lcq --lang=en console$"),
        (["--job", "wait", "--json", "wait"], "--job belongs behind 'wait'", "lcq --json wait --job wait$"),
        (["keys", "--node", "x", "rotate"], "--node belongs behind 'rotate'", "lcq keys rotate --node x$"),
        (["--node", "x", "keys", "rotate"], "--node belongs behind 'keys rotate'", "lcq keys rotate --node x$"),
        (["--job", "wait"], "no such option: --job", "lcq --help"),
        (["tasks", "--job", "a", "--job", "b"], "'--job': it is given more than once", "lcq tasks --help"),
        (["--config", "a.yaml", "--config", "absent.yaml", "tasks"], "the configuration absent.yaml", "--config"),
        (["retry", "--failed", "--job", ""], "'--job': it is empty", "lcq retry --help"),
        (["wait", "--job", "a", "--job="], "'--job': it is empty", "lcq wait --help"),
    ],
)
def test_wrong_usage_is_one_line_with_a_hint_and_code_2(arguments: list[str], error: str, hint: str) -> None:
    Answer(*arguments).refuses(2, error, hint)


@pytest.mark.parametrize(
    ("line", "right"),
    [("doctor --scheduler x:1", " --scheduler x:1 doctor"), ("--json doctor", " doctor --json")],
)
def test_lcq_agent_says_where_an_option_belongs_too(
    line: str, right: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from worker.cli import main

    monkeypatch.setattr(sys, "argv", ["lcq-agent", *line.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert re.fullmatch(rf"error: --\w+ belongs .*\nhint: .*{re.escape(right)}\n", capsys.readouterr().err)


def test_bash_completes_commands_options_and_their_values_at_a_tab(tmp_path: Path) -> None:
    lines = [
        ["lcq", "--scheduler", "x:1", "keys", "rot"],
        ["lcq", "wait", "--job", "a", "--job", "b", "--time"],
        ["lcq", "tasks", "--status", "comp"],
    ]
    script = Answer("completion", "bash").out + "".join(
        f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; _lcq_completion lcq; echo ${{COMPREPLY[*]}}\n"
        for words in lines
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell = subprocess.run(
        ["bash", "-c", "set -e; " + script + "complete -p lcq"], env=os.environ | {"PATH": path}, cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (shell.stdout.split()[:3], shell.stderr) == (["rotate", "--timeout", "completed"], "")
    assert shell.stdout.endswith("complete -o default -F _lcq_completion lcq\n")
    assert Answer("completion", "zsh").out.startswith("#compdef lcq")
    assert Answer("completion", "fish").out.startswith("complete --command lcq ")


def test_a_bad_setting_names_file_and_key(tmp_path: Path) -> None:
    settings = tmp_path / "lcq.yaml"
    settings.write_text("zeromq:\n  base_prot: 1\n")
    answer = Answer("--config", str(settings), "tasks")
    assert answer.code == 2
    assert answer.talk.startswith("error: ")
    assert "lcq.yaml: line 2: zeromq.base_prot: unknown key, did you mean 'base_port'?" in answer.talk


def test_every_command_goes_to_the_cluster_of_the_context_that_is_named(peer: Peer, tmp_path: Path) -> None:
    host, _, port = peer.endpoint.removeprefix("tcp://").rpartition(":")
    settings = tmp_path / "lcq.yaml"
    mine = f"{{scheduler_host: '{host}', zeromq: {{control_port: {port}}}}}"
    settings.write_text(f"scheduler_host: 192.0.2.1\ncontexts: {{mine: {mine}}}\n")
    peer.handlers["queues"] = lambda ask: QueuesAnswer()
    assert Answer("--config", str(settings), "--context", "mine", "queues").code == 0
    Answer("--config", str(settings), "--context", "mien", "queues").refuses(2, "no context 'mien'", "mean 'mine'")


def test_nobody_at_the_other_end_is_code_3(peer: Peer) -> None:
    peer.handlers["nodes"] = lambda ask: StateUnavailable("redis://r", "connection refused")
    lcq(peer, "nodes").refuses(3, "Redis at redis://r does not answer", "start it")
    alone = Answer("--scheduler", "127.0.0.1:1", "--patience", "0.1", "nodes")
    alone.refuses(3, "no scheduler answers at tcp://127.0.0.1:1", "lcq up")


def test_only_debug_shows_a_traceback(peer: Peer) -> None:
    peer.handlers["drain"] = lambda ask: NodeNotFound("x")
    peer.handlers["jobs"] = lambda ask: JobNotFound("j")
    assert "Traceback" in lcq(peer, "--log-level", "debug", "jobs", "j").talk
    lcq(peer, "jobs", "j").refuses(2, "no job 'j'", "lcq jobs")


# ---------------------------------------------------------------- how things are shown


def test_what_a_terminal_would_obey_is_spelled_out() -> None:
    assert visible("a\x1b[31mb\nc\x9b\u202ed\udcff") == "a\\x1b[31mb\\nc\\x9b\\u202ed\\udcff"
    assert visible("Käse [bold]é日本") == "Käse [bold]é日本"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.00s"), (0.349, "0.35s"), (12.06, "12.1s"), (60, "1m 0s"), (200, "3m 20s"), (3599.6, "1h 0m"),
        (7260, "2h 1m"), (47 * 3600, "47h 0m"), (50 * 3600, "2d 2h"), (400 * 86400, "400d 0h"),
    ],
)  # fmt: skip
def test_spans_of_time_are_told_in_two_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_moments_ages_and_paths_are_short() -> None:
    assert age(None) == clock(None) == clock(0) == ""
    assert age(round(time.time() * 1000) + 60_000) == "0.00s"  # Redis's clock may be ahead of ours
    assert clock(1_700_000_000_123).endswith(".123")
    assert [tail(path) for path in ("a.png", "/a.png", "x/a.png", "/home/ann/x/a.png")] == [
        "a.png",
        "/a.png",
        "x/a.png",
        "…/x/a.png",
    ]


EVIL = "[red]x[bold]\x1b]0;owned\x07\n.png"


def evil_record() -> Any:
    record = a_record(new_id(), TaskStatus.FAILED)
    failure = Failure(error_class=ErrorClass.BAD_INPUT, code="undecodable", message=f"cannot read {EVIL}")
    task = record.task.model_copy(update={"image_path": f"/photos/{EVIL}"})
    return record.model_copy(update={"task": task, "failure": failure, "submitted_ms": 1})


def test_markup_and_escape_codes_in_data_are_shown_not_obeyed(peer: Peer) -> None:
    record = evil_record()
    peer.handlers["list_tasks"] = lambda ask: ListTasksAnswer(tasks=(record,), total=1)
    answer = lcq(peer, "tasks")
    assert "/photos/[red]x[bold]\\x1b]0;owned\\x07\\n.png" in answer.out
    assert "\x1b" not in answer.out
    assert len(answer.out.splitlines()) == 3


def test_a_narrow_table_cuts_names_but_never_ids(peer: Peer) -> None:
    record = evil_record()
    peer.handlers["list_tasks"] = lambda ask: ListTasksAnswer(tasks=(record,), total=1)
    answer = lcq(peer, "tasks", columns=70)
    assert record.id in answer.out
    assert all(len(line) <= 70 for line in answer.out.splitlines())


def test_json_may_stand_before_or_behind_the_command(peer: Peer) -> None:
    record = evil_record()
    peer.handlers["list_tasks"] = lambda ask: ListTasksAnswer(tasks=(record,), total=3)
    behind = lcq(peer, "tasks", "--json")
    before = lcq(peer, "--json", "tasks")
    assert (
        behind.document
        == before.document
        == {
            "tasks": [record.model_dump(mode="json") | {"reason": None}],
            "total": 3,
        }
    )
    assert behind.talk == ""


def test_what_was_done_last_is_taken_back_without_its_id(peer: Peer) -> None:
    mine = ActRecord(
        id="7-0", at_ms=7, act="prioritise", actor="ann", command="1m8m5sjk94knhf7b", on="ids=06ft3k", undo_ms=9000
    )
    old = mine.model_copy(update={"id": "6-0", "command": "1m8m5sjk94knhf7a", "undo_ms": 0, "reason": "[red]"})
    peer.handlers["acts"] = lambda ask: ActsAnswer(acts=() if ask.before else (mine, old))
    peer.handlers["undo"] = lambda ask: BulkAnswer(done=("06ft3k",))
    shown = lcq(peer, "acts", columns=200)
    assert "1m8m5sjk94knhf7b 9.0s" in shown.out
    assert "1m8m5sjk94knhf7a" not in shown.out
    assert "[red]" in shown.out
    answer = lcq(peer, "undo", "--reason", "wrong one")
    assert (answer.out.strip(), answer.code) == ("taken back: 06ft3k", 0)
    assert [(ask.act, ask.reason) for ask in peer.heard_of("undo")] == [("1m8m5sjk94knhf7b", "wrong one")]
    assert "2 acts have ids that begin with '1m8m'" in lcq(peer, "undo", "1m8m").talk
    assert "no act of late has an id that begins with 'zz'" in lcq(peer, "undo", "zz").talk
    peer.handlers["acts"] = lambda ask: ActsAnswer(acts=(old,))
    assert "has done nothing in the last 15 s that can be taken back" in lcq(peer, "undo").talk


def test_acts_are_filtered_and_paged_to_what_is_older(peer: Peer) -> None:
    audit = tuple(
        ActRecord(id=f"{at}-0", at_ms=at, act="retry" if at % 2 else "drain", actor="ann", command=f"c{at}")
        for at in range(1_800_000_000_009, 1_800_000_000_000, -1)
    )
    peer.handlers["acts"] = lambda ask: ActsAnswer(
        acts=tuple(act for act in audit if not ask.before or act.id < ask.before)[: min(ask.limit, 2)]
    )
    cut = lcq(peer, "acts", "--limit", "3")
    assert "there are older ones: --limit shows more, --before 1800000000007-0 goes on from here" in cut.talk
    rest = lcq(peer, "acts", "--before", "1800000000007-0", "--json").document
    assert [one["id"] for one in rest] == [act.id for act in audit[3:]]
    found = lcq(peer, "acts", "act:drain", "--limit", "4")
    assert (found.out.count("drain"), found.out.count("retry"), found.talk) == (4, 0, "")
    lcq(peer, "acts", "--before", "2h")
    (asked,) = {ask.before for ask in peer.heard_of("acts")[-1:]}
    assert 0 < int(asked.partition("-")[0]) < time.time() * 1000 - 7_000_000
    assert "is no length of time and no id of an act" in lcq(peer, "acts", "--before", "noon").talk
    assert "no field 'who'" in lcq(peer, "acts", "who:ann").talk
    assert "no act fits the filter" in lcq(peer, "acts", "stop").talk


# ---------------------------------------------------------------- looking


def test_a_filter_in_words_reaches_the_scheduler_and_what_came_of_it_is_told(peer: Peer) -> None:
    peer.handlers["list_tasks"] = lambda ask: ListTasksAnswer(
        tasks=(a_record(new_id()),), total=900, looked_at=300, cursor="" if ask.cursor else "somewhere"
    )
    answer = lcq(peer, "tasks", "state:failed", "age<15m", "!job:holiday")
    assert {ask.where for ask in peer.heard_of("list_tasks")} == {"state:failed age<15m !job:holiday"}
    assert "2 of 900 tasks fit" in answer.talk
    cut = lcq(peer, "tasks", "cat", "--limit", "1")
    assert "1 of those that fit, after looking at 300 tasks; --limit shows more" in cut.talk


def test_what_waits_says_in_the_list_why_as_the_scheduler_sees_it_now(peer: Peer) -> None:
    ids = [new_id() for _ in range(3)]
    records = [a_record(task_id, status) for task_id, status in zip(ids, ("queued", "pending", "failed"), strict=True)]
    records[0] = records[0].model_copy(update={"why": "gpu-low: the least that has it"})
    peer.handlers["list_tasks"] = lambda ask: ListTasksAnswer(tasks=tuple(records), total=3)
    assert "the least that has it" in lcq(peer, "tasks", columns=250).out, "all that an older scheduler can tell"
    paused = because(WhyCode.QUEUE_PAUSED, "queue gpu-low is paused by ann: [b]lunch", queue="gpu-low")
    peer.handlers["whys"] = lambda ask: WhysAnswer(whys=(WhyAnswer(id=ids[0], status=TaskStatus.QUEUED, why=paused),))
    assert "queue gpu-low is paused by ann: [b]lunch" in lcq(peer, "tasks", columns=250).out
    assert peer.heard_of("whys")[-1].ids == tuple(ids[:2]), "what has ended is not asked about"
    told = lcq(peer, "tasks", "--json").document["tasks"]
    assert [one["reason"] and one["reason"]["code"] for one in told] == ["queue_paused", None, None]
    assert told[0]["reason"]["hint"] == "lcq resume gpu-low"
    assert told[0]["why"] == "gpu-low: the least that has it"


def test_a_filter_that_means_nothing_is_refused_before_anybody_is_asked(peer: Peer) -> None:
    answer = lcq(peer, "tasks", "stat:failed")
    assert answer.code == 2
    assert "no field 'stat' (did you mean 'state'?)" in answer.talk
    assert not peer.heard_of("list_tasks")


def test_a_scheduler_that_knows_no_filter_is_not_believed(peer: Peer) -> None:
    peer.handlers["list_tasks"] = lambda ask: ListTasksAnswer(tasks=(a_record(new_id()),), total=1)
    answer = lcq(peer, "tasks", "state:failed")
    assert answer.code != 0
    assert "this scheduler is older than filters in words" in answer.talk


def test_tasks_are_listed_over_pages_with_what_is_left_out(peer: Peer) -> None:
    ids = [new_id() for _ in range(MAX_BATCH + 10)]

    def page(ask: Any) -> ListTasksAnswer:
        start = int(ask.cursor or 0)
        shown = ids[start : start + ask.limit]
        return ListTasksAnswer(tasks=tuple(map(a_record, shown)), total=len(ids), cursor=str(start + len(shown)))

    peer.handlers["list_tasks"] = page
    answer = lcq(peer, "tasks", "--limit", str(MAX_BATCH + 5), "--status", "queued", "--job", "j", "--node", "n")
    assert [line.split()[0] for line in answer.out.splitlines()[2:]] == ids[: MAX_BATCH + 5]
    assert answer.talk == f"{MAX_BATCH + 5} of {MAX_BATCH + 10}; --limit shows more\n"
    asked = peer.heard_of("list_tasks")[0]
    assert (asked.status, asked.job, asked.node, asked.cause) == ("queued", "j", "n", "")


def test_a_task_is_told_with_its_attempts_events_and_explanation(peer: Peer) -> None:
    record = evil_record()
    failed = Attempt(number=1, node="n1", started_ms=1000, ended_ms=3500, outcome="failed", failure=record.failure)
    event = Event(id="1700000000123-4", move="fail_task", fields={"id": record.id, "status": "failed", "node": "n1"})
    peer.handlers["find"] = lambda ask: FindAnswer(id=record.id)
    peer.handlers["history"] = lambda ask: HistoryAnswer(
        record=record, attempts=(failed,), events=(event,), explanation="it failed for good"
    )
    answer = lcq(peer, "task", record.id[:6])
    for told in (record.id, "it failed for good", "2.5s", "undecodable: cannot read [red]", "fail_task", "node=n1"):
        assert told in answer.out
    assert "\x1b" not in answer.out
    one = lcq(peer, "task", record.id, "--json").document
    assert one["record"] == record.model_dump(mode="json")
    assert one["explanation"] == "it failed for good"


def test_a_result_tells_its_path_and_size(peer: Peer) -> None:
    result = TaskResult(path="/out/a.png", bytes=123, sha256="0" * 64, width=4, height=3, seconds=0.5)
    record = a_record(new_id(), TaskStatus.COMPLETED).model_copy(update={"result": result})
    peer.handlers["history"] = lambda ask: HistoryAnswer(record=record, attempts=(), events=(), explanation="done")
    answer = lcq(peer, "task", record.id)
    assert re.search(r"result +/out/a\.png", answer.out)
    assert re.search(r"size +4 x 3, 123 bytes, 0\.50s", answer.out)
    assert "privacy" not in answer.out
    record = record.model_copy(update={"task": record.task.model_copy(update={"privacy": Privacy.EXPORTABLE})})
    assert re.search(r"privacy +exportable: its pictures may leave the house", lcq(peer, "task", record.id).out)


def test_nodes_queues_and_jobs_are_listed(peer: Peer) -> None:
    capability = NodeCapability(
        devices=(Device(id="cpu", kind=DeviceKind.CPU, slots=4),),
        models={"cv2-ns": ModelOffer(kinds=(DeviceKind.CPU,))},
    )
    node = NodeRecord(
        id="studio-1", boot_id="b", status=NodeStatus.DRAINING, capability=capability, running=2, why="by ann"
    )
    queue = QueueRecord(
        config=QueueConfig(name="cpu-light", kind=DeviceKind.CPU), paused=True, paused_by="ann",
        paused_reason="lunch", counts={TaskStatus.QUEUED: 7}, nodes=("studio-1",),
    )  # fmt: skip
    job = JobSummary(name="holiday", submitted_ms=1, counts={TaskStatus.COMPLETED: 1, TaskStatus.QUEUED: 2})
    peer.handlers |= {
        "nodes": lambda ask: NodesAnswer(nodes=(node,)),
        "queues": lambda ask: QueuesAnswer(queues=(queue,)),
        "jobs": lambda ask: JobsAnswer(jobs=(job,)),
    }
    assert re.search(r"studio-1 +draining +2/4 +cpu .*cv2-ns .*by ann", lcq(peer, "nodes").out)
    assert re.search(r"cpu-light +7 .*studio-1 +paused by ann lunch", lcq(peer, "queues").out)
    assert re.search(r"holiday .* 3 +1 +0 +0 +2 +33", lcq(peer, "jobs").out)
    assert lcq(peer, "nodes", "--json").document == {"nodes": [node.model_dump(mode="json")]}
    assert lcq(peer, "queues", "--json").document == {"queues": [queue.model_dump(mode="json")]}
    assert lcq(peer, "jobs", "--json").document == {"jobs": [job.model_dump(mode="json")]}


def test_nodes_show_their_devices_and_what_is_left_out_and_why(peer: Peer) -> None:
    gpu = Device(id="GPU-8f3a1c22-55aa-4b1c", kind=DeviceKind.GPU, name="RTX 4070", slots=1, vram_mib=12_282)
    capability = NodeCapability(
        devices=(gpu, Device(id="cpu", kind=DeviceKind.CPU, slots=4, memory_mib=32_000)),
        models={"lama": ModelOffer(kinds=(DeviceKind.GPU,))},
        left_out={"mat": "no weights; lcq models pull mat"},
    )
    readings = {
        gpu.id: DeviceReading(
            total_mib=12_282, free_mib=3100, foreign_mib=8200, busy=0.5, temperature_c=61.4, warm=("lama",)
        ),
        "cpu": DeviceReading(fault="its self-test failed"),
    }
    node = NodeRecord(
        id="studio-1", boot_id="b", status=NodeStatus.ONLINE, capability=capability, readings=readings,
        serves={gpu.id: ("gpu-high", "gpu-medium"), "cpu": ()},
    )  # fmt: skip
    peer.handlers["nodes"] = lambda ask: NodesAnswer(nodes=(node,))
    told = lcq(peer, "nodes").out
    assert re.search(
        r"studio-1 +GPU-8f3a1c22 +RTX 4070 +1 +3,100 +12,282 +8,200 +50% +61 °C +lama +gpu-high, gpu-medium", told
    )
    assert re.search(r"studio-1 +cpu +4 +32,000 +takes no work", told)
    assert re.search(
        r"Left out\n.*\n.*\n *studio-1 +cpu +its self-test failed *\n *studio-1 +mat +no weights; lcq models pull mat",
        told,
    )
    assert lcq(peer, "nodes", "--json").document == {"nodes": [node.model_dump(mode="json")]}


def test_a_node_shows_how_each_of_its_devices_is_and_what_keeps_one_from_work(peer: Peer) -> None:
    ids = ("GPU-1", "GPU-2", "GPU-3", "cpu")
    devices = tuple(Device(id=one, kind=DeviceKind.CPU if one == "cpu" else DeviceKind.GPU, slots=2) for one in ids)
    capability = NodeCapability(
        devices=devices, models={"lama": ModelOffer(kinds=(DeviceKind.GPU,))}, left_out={"mat": "no weights"}, host="s2"
    )
    readings = {
        "GPU-1": DeviceReading(
            total_mib=8000, free_mib=3000, foreign_mib=4000, busy=0.9, foreign_busy=0.6, temperature_c=71,
            slows_down_c=93, fault="busy elsewhere: other programs use 60% of it", rest="busy_elsewhere",
        ),
        "GPU-2": DeviceReading(), "GPU-4": DeviceReading(fault="fell off the bus"),
    }  # fmt: skip
    found = NodeRecord(
        id="studio-2", boot_id="b", status=NodeStatus.ONLINE, capability=capability, readings=readings, running=1,
        serves={"GPU-1": ("gpu-high",)}, quarantined={"GPU-2": "is slow"}, on_probation={"GPU-3": 2},
        telemetry={"clock_offset_s": -0.25, "clock_error_s": 0.01, "load_1m": 3.0, "cores": 4.0},
    )  # fmt: skip
    peer.handlers["nodes"] = lambda ask: NodesAnswer(nodes=(found,))
    told = " ".join(lcq(peer, "node", "studio-2").out.split())
    for words in (
        "status online", "busy 1 of 8 slots", "load 3.0 on 4 cores", "clock 0.25 s behind the cluster's (± 0.01 s)",
        "state rests, busy elsewhere: other programs use 60% of it", "in use 90%, 60% by other programs",
        "memory 3,000 of 8,000 MiB free, 4,000 by other programs", "heat 71 °C (slows itself down at 93 °C)",
        "GPU-2 slots 2 state in quarantine: is slow", "GPU-3 slots 2 state on probation, 2 tasks to go",
        "cpu slots 2 state takes work", "GPU-4 state takes no work: fell off the bus", "mat no weights",
    ):  # fmt: skip
        assert words in told, (words, told)
    assert lcq(peer, "node", "--json", "studio-2").document == found.model_dump(mode="json")
    lcq(peer, "node", "studio-9").refuses(2, "studio-9", "lcq nodes")
    skewed = found.model_copy(update={"telemetry": {"clock_warning": "this host's clock is 9.0 s ahead"}})
    peer.handlers["nodes"] = lambda ask: NodesAnswer(nodes=(skewed,))
    assert re.search(r"clock +this host's clock is 9.0 s ahead", lcq(peer, "node", "studio-2").out)
    assert re.search(r"studio-2 .*this host's clock is 9.0 s ahead", lcq(peer, "nodes").out)


def test_a_function_that_was_away_says_until_when_it_rests_or_that_one_call_tries_it(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lcq.cli.output.time.localtime", time.gmtime)
    kind, until = DeviceKind.SERVERLESS, 1_800_000_010_000
    devices = tuple(Device(id=one, kind=kind, slots=1) for one in ("resting", "older", "tried", "well", "held", "cold"))
    fault = LEFT_ALONE.format(why="it cannot be reached: refused")
    asleep = FunctionReading(rests_until_ms=until, in_vain=3)
    readings = {
        "resting": DeviceReading(fault=fault, rest="endpoint_away", function=asleep),
        "older": DeviceReading(fault=fault, rest="endpoint_away", function=FunctionReading()),
        "tried": DeviceReading(function=FunctionReading(trials=1, in_vain=1)),
        "cold": DeviceReading(function=FunctionReading(not_woken="endpoint_refuses: it said 403")),
        "held": DeviceReading(fault=fault, rest="endpoint_away", function=asleep),
    }
    node = NodeRecord(
        id="far", boot_id="b", status=NodeStatus.ONLINE, readings=readings, quarantined={"held": "is slow"},
        capability=NodeCapability(devices=devices, models={"lama": ModelOffer(kinds=(kind,))}),
        serves={one.id: ("serverless",) for one in devices},
    )  # fmt: skip
    peer.handlers |= {
        "functions": lambda ask: FunctionsAnswer(functions=functions_of([node], {})),
        "nodes": lambda ask: NodesAnswer(nodes=(node,)),
    }
    rests = "rests until 08:00:10, after 3 calls in vain"
    states = {line.split()[0]: line.rstrip() for line in lcq(peer, "functions").out.splitlines() if "far" in line}
    assert states["resting"].endswith(f"{rests}: it cannot be reached: refused")
    assert states["older"].endswith(
        "takes no work: its function is left alone until it is tried again: it cannot be reached: refused"
    )
    assert states["tried"].endswith("is tried by one call, after 1 call in vain")
    assert states["well"].endswith("takes work")
    assert states["cold"].endswith("takes work; it was not woken: endpoint_refuses: it said 403")
    assert states["held"].endswith("takes no work: in quarantine: is slow")
    told = {one["function"]: one for one in lcq(peer, "functions", "--json").document["functions"]}
    for name, said in {"resting": (until, None, 3), "tried": (None, 1, 1), "held": (None, None, 3)}.items():
        assert tuple(told[name][field] for field in ("rests_until_ms", "trials", "in_vain")) == said
    listed = lcq(peer, "nodes").out
    assert re.search(r"far +resting .*rests until 08:00:10", listed)
    assert re.search(r"far +older .*rests: endpoint away", listed)
    assert re.search(r"far +tried .*serverless \(is tried by one call\)", listed)
    whole = " ".join(lcq(peer, "node", "far").out.split())
    assert f"state {rests}: it cannot be reached" in whole
    assert "state is tried by one call" in whole
    gone = node.model_copy(update={"status": NodeStatus.OFFLINE})
    assert {one.rests_until_ms for one in functions_of([gone], {})} == {None}, "what it said last holds no more"


def test_a_task_shows_what_was_made_easier_and_what_was_paid_for_each_attempt(peer: Peer) -> None:
    record = a_record(new_id(), TaskStatus.PROCESSING).model_copy(update={"eased": (Ease.SMALLER_TILE,)})
    attempts = (
        Attempt(number=1, node="n", started_ms=1, ended_ms=2, outcome="failed", spend=Bill(worst=6000), spent=95),
        Attempt(number=2, node="n", started_ms=3, eased=(Ease.SMALLER_TILE, Ease.CPU)),
    )
    answer = HistoryAnswer(record=record, attempts=attempts, events=(), explanation="runs", currency="EUR")
    peer.handlers |= {"history": lambda ask: answer}
    told = lcq(peer, "task", record.id).out
    assert re.search(r"eased +smaller_tile", told)
    assert re.search(r"PAID +OUTCOME +EASED +FAILURE", told)
    assert re.search(r" 1 .* 0.000095 EUR +failed", told)
    assert re.search(r" 2 .*running +smaller_tile, cpu", told)
    unpaid = attempts[0].model_copy(update={"spend": None, "spent": 0})
    plain = HistoryAnswer(record=record, attempts=(unpaid,), events=(), explanation="runs")
    peer.handlers |= {"history": lambda ask: plain}
    told = lcq(peer, "task", record.id).out
    assert "EASED" not in told
    assert "PAID" not in told


def test_nothing_to_list_is_said_on_stderr(peer: Peer) -> None:
    peer.handlers["nodes"] = lambda ask: NodesAnswer()
    answer = lcq(peer, "nodes")
    assert (answer.code, answer.out) == (0, "")
    assert "lcq-agent" in answer.talk


def test_events_are_lines_for_people_and_documents_for_programs(peer: Peer) -> None:
    task_id = new_id()
    mine = Event(id="1700000000123-0", move="claim_tasks", fields={"id": task_id, "status": "processing", "node": "n"})
    other = Event(id="1700000000124-0", move="pause_queue", fields={"queue": "q"})
    peer.handlers["info"] = lambda ask: info(other.id)
    peer.handlers["events"] = lambda ask: EventsAnswer(events=(mine, other), last_id=other.id)
    people = lcq(peer, "events", "--since", "90000d").out.splitlines()
    assert len(people) == 2
    assert re.search(rf"\.123 claim_tasks +{task_id} processing +node=n$", people[0])
    programs = lcq(peer, "events", "--since", "90000d", "--task", task_id, "--json").out.splitlines()
    assert [json.loads(line) for line in programs] == [mine.model_dump(mode="json")]


def test_the_version_is_told_with_and_without_a_scheduler(peer: Peer) -> None:
    there = lcq(peer, "version")
    assert re.search(r"scheduler +LCQ 9, protocol 1, at tcp://127\.0\.0\.1:", there.out)
    assert lcq(peer, "version", "--json").document["scheduler"]["version"] == "9"
    alone = Answer("--scheduler", "127.0.0.1:1", "--patience", "0.1", "version")
    assert alone.code == 0
    assert "none answers at tcp://127.0.0.1:1" in alone.out


# ---------------------------------------------------------------- submitting


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("photos/a.jpg", "photos/a_mask.png", "photos/sub/a.png", "photos/sub/a_mask.png", "photos/note.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return tmp_path / "photos"


def accept(ask: Any) -> SubmitAnswer:
    return SubmitAnswer(
        accepted=tuple(
            Accepted(id=task.id, queue=ask.queue or "cpu-light", status=TaskStatus.QUEUED, why="no node is online")
            for task in ask.tasks
        )
    )


def test_a_folder_becomes_a_job_of_tasks_with_absolute_paths(photos: Path, peer: Peer) -> None:
    peer.handlers["submit"] = accept
    answer = lcq(peer, "submit", "photos", "--out", "out", "--format", "PNG", "--radius", "5", "--priority", "high")
    (sent,) = peer.heard_of("submit")
    assert [(task.image_path, task.mask_path, task.output_path) for task in sent.tasks] == [
        (f"{photos}/a.jpg", f"{photos}/a_mask.png", f"{photos.parent}/out/a.png"),
        (f"{photos}/sub/a.png", f"{photos}/sub/a_mask.png", f"{photos.parent}/out/sub/a.png"),
    ]
    job = sent.tasks[0].job
    assert re.fullmatch(r"photos-[0-9a-f]{6}", job)
    for task in sent.tasks:
        assert (task.config, task.priority, task.user_id) == ({"format": "png", "radius": 5.0}, "high", login_name())
    assert answer.code == 0
    assert answer.out == f"2 tasks submitted as job {job} (cpu-light 2)\n"
    assert f"skipped {photos}/note.txt: not an image suffix (.txt)" in answer.talk
    assert answer.talk.count("waiting: no node is online") == 1
    assert f"lcq wait --job {job}" in answer.talk


def test_a_dry_run_of_a_submit_tells_where_and_when_and_writes_nothing(photos: Path, peer: Peer) -> None:
    peer.handlers["foresee"] = lambda ask: ForeseeAnswer(
        foreseen=(Foreseen(queue=ask.queue or "gpu-low", count=len(ask.tasks), seconds=9.0, done_s=90.0, guessed=True),)
    )
    told = lcq(peer, "submit", "photos", "--out", "out", "--model", "lama", "--queue", "gpu-high", "--dry-run")
    assert told.code == 0
    assert told.out.splitlines() == [
        "2 tasks would be submitted", "2 to gpu-high, 9 s of work by a guess, the last done in about 1m 30s"
    ]  # fmt: skip
    document = lcq(peer, "submit", "photos", "--out", "out", "--dry-run", "--json").document
    assert (document["would"], document["done"], document["foreseen"][0]["guessed"]) == (2, 0, True)
    assert [task.model for task in peer.heard_of("foresee")[0].tasks] == ["lama", "lama"]
    assert not (photos.parent / "out").exists()
    assert peer.heard_of("submit") == []


def test_a_backlog_that_nobody_has_measured_is_told_as_a_guess(peer: Peer) -> None:
    queues = tuple(
        QueueScale(queue=name, kind=DeviceKind.GPU, waiting=3, running=0, backlog_s=12.0, live_slots=1, wanted_slots=1,
                   oldest_wait_s=1.0, guessed=name == "gpu-low")
        for name in ("gpu-low", "gpu-high")
    )  # fmt: skip
    peer.handlers["autoscale"] = lambda ask: AutoscaleAnswer(scale=Scale(target_wait_s=60.0, queues=queues))
    told = {line.split()[0]: line for line in lcq(peer, "autoscale", columns=120).out.splitlines() if line.strip()}
    assert "12.0s, a guess" in told["gpu-low"]
    assert ("12.0s" in told["gpu-high"], "guess" in told["gpu-high"]) == (True, False)


def test_what_a_model_knows_is_set_by_name_and_read_as_yaml(photos: Path, peer: Peer) -> None:
    peer.handlers["submit"] = accept
    lcq(peer, "submit", "photos/a.jpg", "--model", "lama", "--set", "precision=bf16", "--set", "ldm_steps=25", "--set",
        "zits_wireframe=false", "--set", "prompt=a = b")  # fmt: skip
    (sent,) = peer.heard_of("submit")
    known = {"model": "lama", "precision": "bf16", "ldm_steps": 25, "zits_wireframe": False, "prompt": "a = b"}
    assert sent.tasks[0].config == known


@pytest.mark.parametrize("typed", ["precision", "=bf16", "steps=[1"])
def test_a_setting_that_is_none_is_refused_with_an_example(photos: Path, peer: Peer, typed: str) -> None:
    answer = lcq(peer, "submit", "photos/a.jpg", "--set", typed)
    assert answer.code == 2
    assert "--set" in answer.talk
    assert not peer.heard_of("submit")


def test_other_work_than_inpainting_needs_no_mask(photos: Path, peer: Peer) -> None:
    peer.handlers["submit"] = accept
    (photos / "a_mask.png").unlink()
    lcq(peer, "submit", "photos", "--type", "upscale", "--model", "lanczos")
    (sent,) = peer.heard_of("submit")
    assert [(task.task_type, task.image_path, task.mask_path) for task in sent.tasks] == [
        ("upscale", f"{photos}/a.jpg", None),
        ("upscale", f"{photos}/sub/a.png", f"{photos}/sub/a_mask.png"),
    ]


def test_masks_that_are_made_are_png(photos: Path, peer: Peer) -> None:
    peer.handlers["submit"] = accept
    lcq(peer, "submit", "photos/a.jpg", "--type", "segment", "--model", "sam")
    (sent,) = peer.heard_of("submit")
    assert sent.tasks[0].output_path == f"{photos}/cleaned/a.png"


def test_one_image_has_no_job_and_tells_its_id(photos: Path, peer: Peer) -> None:
    peer.handlers["submit"] = accept
    answer = lcq(peer, "submit", "photos/a.jpg", "--queue", "cpu-intensive", "--node", "n1", "--user", "ann")
    (sent,) = peer.heard_of("submit")
    assert (sent.queue, sent.node, sent.tasks[0].job, sent.tasks[0].user_id) == ("cpu-intensive", "n1", None, "ann")
    assert answer.out == f"{sent.tasks[0].id} queued in cpu-intensive\n"


def test_a_submission_as_json_is_one_document(photos: Path, peer: Peer) -> None:
    peer.handlers["submit"] = accept
    told = lcq(peer, "submit", "photos", "--job", "holiday", "--json").document
    assert told["job"] == "holiday"
    assert len(told["accepted"]) == 2
    assert told["skipped"] == [{"path": f"{photos}/note.txt", "why": "not an image suffix (.txt)"}]
    assert told["refused"] == told["tasks"] == []


def test_what_the_scheduler_refuses_is_told_and_is_code_2(photos: Path, peer: Peer) -> None:
    def refuse_the_second(ask: Any) -> SubmitAnswer:
        refused = Refusal(id=ask.tasks[1].id, code="unknown_model", message="a.png: no such model: 'x'", hint="h")
        return SubmitAnswer(accepted=accept(ask).accepted[:1], refused=(refused,))

    peer.handlers["submit"] = refuse_the_second
    answer = lcq(peer, "submit", "photos", "--model", "x")
    assert answer.code == 2
    assert "error: a.png: no such model: 'x'" in answer.talk
    assert "queued in cpu-light" in answer.out


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["photos/note.txt"], "no mask", "--mask"),
        (["photos", "--mask", "absent"], "absent is not there", "folder of masks"),
        (["photos", "--out", "photos"], "would overwrite", "--out"),
        (["photos", "--out", "new/a.PNG"], "new/a.PNG is named like an image", "such as new/a; there each is called"),
        (["photos", "--out", "photos/note.txt"], "note.txt is a file, and results go", "such as cleaned; there"),
        (["photos", "--model", "bad name"], "config.model must be a model's name", ""),
        (["photos", "--format", "../x"], "no format .* can be written", "png"),
        (["empty"], "nothing to submit", "NAME_mask"),
    ],
)
def test_what_cannot_be_submitted_is_refused_before_anything_is_sent(
    photos: Path, peer: Peer, arguments: list[str], error: str, hint: str
) -> None:
    (photos.parent / "empty").mkdir()
    answer = lcq(peer, "submit", *arguments)
    assert answer.code == 2
    assert re.search(f"error: .*{error}", answer.talk)
    assert "Traceback" not in answer.talk
    assert hint in answer.talk
    assert peer.heard == []


def test_many_skipped_files_are_counted_by_reason(photos: Path, peer: Peer) -> None:
    peer.handlers["submit"] = accept
    for number in range(30):
        (photos / f"{number:02}.txt").touch()
    answer = lcq(peer, "submit", "photos")
    assert answer.talk.count("skipped /") == 10
    assert "skipped 21 more: 21 not an image suffix (.txt)" in answer.talk


# ---------------------------------------------------------------- waiting


def waiting_peer(peer: Peer, *statuses: TaskStatus) -> list[str]:
    story = Story([new_id() for _ in statuses])
    for task_id, status in zip(story.status, statuses, strict=True):
        story.move(task_id, status)
    peer.handlers |= story.peer().handlers
    return list(story.status)


def test_waiting_tells_counts_and_each_failure_and_its_code(peer: Peer) -> None:
    ids = waiting_peer(peer, TaskStatus.COMPLETED, TaskStatus.COMPLETED)
    good = lcq(peer, "wait", *ids)
    assert good.code == 0
    assert re.fullmatch(r"2 completed in \d+\.\d+s\n", good.out)
    ids = waiting_peer(peer, TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED)
    bad = lcq(peer, "wait", *ids)
    assert bad.code == 1
    assert re.fullmatch(r"1 completed, 1 failed, 1 cancelled in \d+\.\d+s\n", bad.out)
    assert f"failed a.png: no reason given [lcq task {ids[1]}]" in bad.talk
    told = lcq(peer, "wait", *ids, "--json").document
    assert {task["task"]["id"] for task in told["tasks"]} == set(ids)


def test_waiting_ends_in_time_with_code_4(peer: Peer) -> None:
    ids = waiting_peer(peer, TaskStatus.QUEUED)
    answer = lcq(peer, "wait", *ids, "--timeout", "0.1")
    assert answer.code == 4
    assert "error: after 0.1 s 1 tasks had not ended" in answer.talk


def test_a_job_is_waited_for_by_its_name_and_so_are_several(peer: Peer) -> None:
    ids = waiting_peer(peer, TaskStatus.COMPLETED, TaskStatus.COMPLETED)
    by_job = dict(zip(("holiday", "wedding"), ids, strict=True))
    peer.handlers["jobs"] = lambda ask: JobsAnswer()
    peer.handlers["list_tasks"] = lambda ask: ListTasksAnswer(tasks=(a_record(by_job[ask.job]),), total=1)
    assert lcq(peer, "wait", "--job", "holiday").out.startswith("1 completed")
    assert [ask.job for ask in peer.heard_of("list_tasks")] == ["holiday"]
    assert lcq(peer, "wait", "--job", "holiday", "--job", "wedding").out.startswith("2 completed")


def test_submit_and_wait_ends_with_the_worst(photos: Path, peer: Peer) -> None:
    story = Story([])
    peer.handlers |= story.peer().handlers

    def accept_and_end(ask: Any) -> SubmitAnswer:
        for task, status in zip(ask.tasks, (TaskStatus.COMPLETED, TaskStatus.FAILED), strict=True):
            story.move(task.id, status)
        return accept(ask)

    peer.handlers["submit"] = accept_and_end
    answer = lcq(peer, "submit", "photos", "--wait")
    assert answer.code == 1
    assert "1 completed, 1 failed" in answer.out


# ---------------------------------------------------------------- steering


def test_acts_resolve_prefixes_and_tell_what_was_done_and_what_refused(peer: Peer) -> None:
    known = {"1a": new_id(), "1b": new_id()}
    peer.handlers["find"] = lambda ask: FindAnswer(id=known[ask.prefix])

    def refuse_the_second(ask: Any) -> BulkAnswer:
        refusal = TransitionRefused("cancel_task", ask.ids[1], "completed")
        return BulkAnswer(done=ask.ids[:1], refused=(Refusal.of(ask.ids[1], refusal),))

    peer.handlers["cancel"] = refuse_the_second
    answer = lcq(peer, "cancel", "1a", "1b", "--reason", "mistake")
    assert answer.code == 2
    assert answer.out == f"cancelled: {known['1a']}\n"
    assert f"error: cannot cancel {known['1b']}: it is completed" in answer.talk
    (sent,) = peer.heard_of("cancel")
    assert (sent.ids, sent.reason, sent.actor) == (tuple(known.values()), "mistake", login_name())


def test_acts_on_a_job_are_asked_for_as_one_until_its_end_and_counted(peer: Peer) -> None:
    refusal = Refusal(id=new_id(), code="unknown_model", message="a.png: no such model: 'x'", hint="known: lama")
    last = new_id()

    def in_two_parts(ask: Any) -> JobActAnswer:
        if not ask.after:
            one = Refusals(count=2, example=refusal)
            return JobActAnswer(done=3000, refused=(one,), after=last, seen=3500, total=3510)
        return JobActAnswer(done=7, refused=(Refusals(count=1, example=refusal),), seen=10, total=3510)

    commands = {
        "cancel_job": ("cancel", "--job", "j", "--reason", "r"),
        "retry_job": ("retry", "--failed", "--job", "j", "--cause", "out_of_memory"),
        "reroute_job": ("reroute", "--job", "j", "--queue", "gpu-low"),
        "prioritise_job": ("prioritise", "--job", "j", "--priority", "low"),
    }
    for command, typed in commands.items():
        peer.handlers[command] = in_two_parts
        answer = lcq(peer, *typed)
        assert (answer.code, answer.out.splitlines()[0].endswith(": 3007 tasks")) == (2, True), command
        assert "error: a.png: no such model: 'x'" in answer.talk
        assert "so with 2 more" in answer.talk
        assert ": 3,000 tasks, 3,500 of 3,510 looked at; it goes on" in answer.talk
        assert answer.talk.count("it goes on") == 1
        first, second = peer.heard_of(command)
        assert (first.job, first.after, second.after, first.id == second.id) == ("j", "", last, False)
    assert peer.heard_of("cancel_job")[0].reason == "r"
    assert peer.heard_of("retry_job")[0].cause == "out_of_memory"
    assert peer.heard_of("reroute_job")[0].queue == "gpu-low"
    assert peer.heard_of("prioritise_job")[0].priority == "low"
    assert lcq(peer, "cancel", "--job", "j", "--json").document["done"] == 3007


def test_a_job_is_paused_and_resumed_by_its_name(peer: Peer) -> None:
    peer.handlers |= {
        "pause_job": lambda ask: AsideAnswer(moved=12, is_last=False),
        "resume_job": lambda ask: AsideAnswer(moved=12),
    }
    paused = lcq(peer, "pause", "--job", "j", "--reason", "lunch")
    assert (paused.code, paused.out) == (0, "paused: job j (12 waiting tasks by now)\n")
    assert "the scheduler goes on with the others by itself" in paused.talk
    assert lcq(peer, "resume", "--job", "j").out == "resumed: job j (12 waiting tasks)\n"
    (asked,) = peer.heard_of("pause_job")
    assert (asked.job, asked.reason, asked.actor) == ("j", "lunch", login_name())
    for wrong in (["pause"], ["resume", "gpu-low", "--job", "j"]):
        assert "say what: either queues or --job NAME" in lcq(peer, *wrong).talk


def test_an_act_on_nothing_is_not_an_error_and_sends_nothing(peer: Peer) -> None:
    peer.handlers["list_tasks"] = lambda ask: ListTasksAnswer()
    answer = lcq(peer, "retry", "--failed")
    assert (answer.code, answer.out) == (0, "")
    assert "nothing to do" in answer.talk
    assert peer.heard_of("retry") == []


@pytest.mark.parametrize(
    ("command", "word"), [("drain", "draining"), ("activate", "active"), ("pause", "paused"), ("resume", "resumed"),
     ("release", "released")],
)  # fmt: skip
def test_acts_on_the_fleet_do_what_they_can_and_tell_the_rest(peer: Peer, command: str, word: str) -> None:
    def know_only_a(ask: Any) -> Done | NodeNotFound:
        return Done() if "a" in (getattr(ask, "node", ""), getattr(ask, "queue", "")) else NodeNotFound("b")

    peer.handlers[command] = know_only_a
    answer = lcq(peer, command, "b", "a", "--reason", "r")
    assert answer.code == 2
    assert answer.out == f"{word}: a\n"
    assert "error: no node 'b'" in answer.talk
    assert {ask.reason for ask in peer.heard_of(command)} == {"r"}
    assert lcq(peer, command, "a", "--json").document == {"done": ["a"], "refused": []}


# ---------------------------------------------------------------- token


def test_a_token_is_shown_once_and_the_settings_know_it_by_its_sum() -> None:
    made = Answer("--json", "token", "ann", "--role", "submitter").document
    assert (made["name"], made["role"], digest_of(made["token"])) == ("ann", "submitter", made["sha256"])
    plain = Answer("token", "ann", columns=200)
    (line,) = (one for one in plain.out.splitlines() if "tokens" in one)
    DistributedConfig.model_validate(yaml.safe_load(line.partition("lcq.yaml")[2]))
    Answer("token", "a b").refuses(2, "no name for a token", "letters")
