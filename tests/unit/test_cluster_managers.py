"""What sample-config has for Kubernetes, KEDA, Slurm and Nomad: of their forms, wired up in itself, and true of LCQ."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import hcl2
import kubernetes_validate
import pytest
import yaml

from lcq.autoscale import scale
from lcq.config import DistributedConfig, load
from lcq.http.access import Role, needed_role, new_token
from lcq.models import DEFAULT_QUEUES, QueueRecord
from lcq.routing import Fleet
from tests.command_lines import complaint, ours_in

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "sample-config"
KUBERNETES = SAMPLES / "kubernetes"
PAGE = (ROOT / "docs" / "cluster-managers.md").read_text()
OLDEST = "1.30"  # of Kubernetes, as the page says
SLACK_S = 20  # what an agent may need after agent.drain_s
SBATCH = SAMPLES / "slurm" / "lcq-agents.sbatch"
NOMAD = SAMPLES / "nomad" / "lcq-agent.nomad.hcl"


@cache
def _read(path: Path) -> tuple[dict[str, Any], ...]:
    return tuple(yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader))


def documents(*files: str) -> list[dict[str, Any]]:
    paths = [KUBERNETES / file for file in files] or sorted(KUBERNETES.glob("*.yaml"))
    return [one for path in paths for one in _read(path)]


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [one for one in documents() if one["kind"] in kinds]


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = [one for one in of_kind(kind) if one["metadata"]["name"] == name]
    return found


def program(container: dict[str, Any]) -> list[str]:
    """What a container of ours runs: its own command, else what its image begins with, behind tini."""
    stages = re.split(r"^FROM ", (ROOT / "Containerfile").read_text(), flags=re.MULTILINE)
    (stage,) = [one for one in stages if f" AS {container['image'].removeprefix('lcq-')}\n" in one]
    begins = json.loads(re.findall(r"^ENTRYPOINT (\[.*\])$", stage, re.MULTILINE)[-1])
    return container.get("command") or begins[begins.index("--") + 1 :]


def containers() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each container, and the pod that it is in."""
    for one in of_kind("Deployment", "StatefulSet"):
        pod = one["spec"]["template"]
        for container in pod["spec"]["containers"]:
            yield container, pod


def ours() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    found = [(container, pod) for container, pod in containers() if container["image"].startswith("lcq")]
    assert len(found) == 3
    return found


@pytest.mark.parametrize("file", sorted(path.name for path in KUBERNETES.glob("*.yaml")))
def test_each_manifest_is_of_the_form_that_its_kind_has(file: str) -> None:
    own = [one for one in documents(file) if not re.match(r"keda\.sh/|kustomize\.", one["apiVersion"])]
    for one in own:
        kubernetes_validate.validate(one, OLDEST, strict=True)
    if file == "scheduler.yaml":
        assert len(own) == 4
        wrong = own[0] | {"spec": own[0]["spec"] | {"replicaz": 2}}
        with pytest.raises(kubernetes_validate.ValidationError, match="replicaz"):
            kubernetes_validate.validate(wrong, OLDEST, strict=True)


def test_kustomize_takes_all_files_but_that_of_keda_and_names_each_image_of_ours() -> None:
    (plan,) = documents("kustomization.yaml")
    files = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(plan["resources"]) == files - {"keda.yaml"}
    assert {one["name"] for one in plan["images"]} == {container["image"] for container, _ in ours()}
    assert plan["namespace"] == named("Namespace", "lcq")["metadata"]["name"]


def test_what_pods_mount_and_read_is_there_and_the_page_makes_their_secrets() -> None:
    claims = {one["metadata"]["name"] for one in of_kind("PersistentVolumeClaim")}
    maps = {one["metadata"]["name"] for one in of_kind("ConfigMap")}
    made = {
        name: set(re.findall(r"--from-(?:literal|file)=([\w.-]+)=", rest))
        for name, rest in re.findall(r"create secret generic ([\w-]+)((?:.|\n)*?)(?=\nlcq|\nkubectl|```)", PAGE)
    }
    read: dict[str, set[str]] = {}
    for one in of_kind("Deployment", "StatefulSet"):
        pod = one["spec"]["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        owned = {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", ())}
        for volume in volumes.values():
            assert volume.get("persistentVolumeClaim", {}).get("claimName") in claims | {None}
            assert volume.get("configMap", {}).get("name") in maps | {None}
            if secret := volume.get("secret"):
                read.setdefault(secret["secretName"], set()).update(item["key"] for item in secret["items"])
        mounted = {
            mount["name"]
            for one in (*pod.get("initContainers", ()), *pod["containers"])
            for mount in one["volumeMounts"]
        }
        assert mounted == set(volumes) | owned
        for container in pod["containers"]:
            assert "operator" not in {mount["name"] for mount in container["volumeMounts"]}
            for variable in container.get("env", ()):
                if wanted := variable.get("valueFrom", {}).get("secretKeyRef"):
                    read.setdefault(wanted["name"], set()).add(wanted["key"])
    for parameter in named("TriggerAuthentication", "lcq-autoscale")["spec"]["secretTargetRef"]:
        read.setdefault(parameter["name"], set()).add(parameter["key"])
    assert read == made


def test_services_budgets_and_policies_mean_pods_and_ports_that_there_are() -> None:
    labels = [pod["metadata"]["labels"] for _, pod in containers()]

    def is_met(selector: dict[str, str]) -> bool:
        return any(selector.items() <= one.items() for one in labels)

    for one in of_kind("Deployment", "StatefulSet"):
        assert one["spec"]["selector"]["matchLabels"].items() <= one["spec"]["template"]["metadata"]["labels"].items()
    for one in of_kind("Service"):
        assert is_met(one["spec"]["selector"])
    assert is_met(named("PodDisruptionBudget", "lcq-scheduler")["spec"]["selector"]["matchLabels"])
    for one in of_kind("NetworkPolicy"):
        assert is_met(one["spec"]["podSelector"]["matchLabels"])
        for rule in one["spec"]["ingress"]:
            assert all(is_met(peer["podSelector"]["matchLabels"]) for peer in rule.get("from", ()))
    defaults = DistributedConfig()
    (scheduler,) = [container for container, _ in ours() if container["name"] == "scheduler"]
    ports = {port["name"]: port["containerPort"] for port in scheduler["ports"]}
    assert ports == {"control": defaults.zeromq.control_port, "http": defaults.scheduler_port}
    for port in named("Service", "lcq-scheduler")["spec"]["ports"]:
        assert port["port"] == ports[port["targetPort"]]
    for_agents, for_all = named("NetworkPolicy", "lcq-scheduler")["spec"]["ingress"]
    first = defaults.zeromq.base_port
    last = first + max(queue.port_offset for queue in DEFAULT_QUEUES)
    assert for_agents["ports"] == [{"port": ports["control"]}, {"port": first, "endPort": last}]
    assert for_all["ports"] == [{"port": ports["http"]}]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert needed_role("GET", scheduler[probe]["httpGet"]["path"]) is None, "a kubelet has no token"
        assert scheduler[probe]["httpGet"]["port"] in ports


def settings_in(container: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DistributedConfig:
    """What a container's LCQ reads: the file of the ConfigMap, its environment, and secrets such as the page makes."""
    _, sha256 = new_token()
    secret = {
        "url": "redis://lcq:secret@lcq-valkey:6379/0",
        "tokens": json.dumps({"keda": {"role": "viewer", "sha256": sha256}}),
        "agents-token": "secret",
    }
    for variable in container["env"]:
        source = variable.get("valueFrom", {})
        value = variable.get("value")
        if "secretKeyRef" in source:
            value = secret[source["secretKeyRef"]["key"]]
        elif "fieldRef" in source:
            value = "10.1.2.3" if source["fieldRef"]["fieldPath"] == "status.podIP" else "lcq-agent-gpu-7d9-x2x"
        assert isinstance(value, str)
        monkeypatch.setenv(variable["name"], value)
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "settings"]
    assert mount["mountPath"] == "/etc/lcq"  # whose config.yaml is the system's file (docs/config.md)
    file = tmp_path / "config.yaml"
    file.write_text(named("ConfigMap", "lcq-settings")["data"]["config.yaml"])
    return load(file)


@pytest.mark.parametrize("number", range(3))
def test_containers_of_ours_are_called_and_set_as_lcq_understands_it_and_may_drain(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    container, pod = ours()[number]
    assert complaint([*program(container), *container["args"]]) == ""
    config = settings_in(container, tmp_path, monkeypatch)
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {str(config.data_path), *map(str, config.storage.roots), "/tmp"} <= mounts
    assert container["securityContext"]["readOnlyRootFilesystem"]
    if container["name"] == "agent":
        assert complaint(container["readinessProbe"]["exec"]["command"]) == ""
        assert pod["spec"]["terminationGracePeriodSeconds"] >= config.agent.drain_s + SLACK_S
        if "nvidia.com/gpu" in container["resources"]["limits"]:
            assert config.agent.devices["cpu"].enabled is False
    else:
        assert config.http.tokens, "it binds more than loopback"
        assert config.scheduler_host == "10.1.2.3"
        assert str(config.zeromq.server_key_file).rpartition("/")[0] in mounts
    assert not config.zeromq.trusted_network
    assert config.zeromq.bind == "0.0.0.0"


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_an_agent_is_invited_by_who_has_the_operators_key_and_keeps_its_own_where_it_runs(kind: str) -> None:
    pod = named("Deployment", f"lcq-agent-{kind}")["spec"]["template"]["spec"]
    (first,) = pod["initContainers"]
    invite, join = ours_in(first["args"][0])
    assert [complaint(invite), complaint(join)] == ["", ""]
    assert [invite[3:5], join[1]] == [["keys", "invite"], "join"]

    def told(container: dict[str, Any], name: str) -> Any:
        return next(one for one in container["env"] if one["name"] == name)

    for name in ("LCQ_AGENT__NAME", "LCQ_DATA_DIR"):
        assert told(first, name) == told(pod["containers"][0], name)


TRIGGER_METADATA = {
    "url", "format", "valueLocation", "targetValue", "activationTargetValue", "unsafeSsl", "timeout", "authMode",
}  # fmt: skip
"""What KEDA's metrics-api scaler reads, but for aggregation and the other kinds of authentication."""
SCALED_OBJECT = {
    "scaleTargetRef": {"name": str, "apiVersion": str, "kind": str, "envSourceContainerName": str},
    "pollingInterval": int, "cooldownPeriod": int, "initialCooldownPeriod": int, "idleReplicaCount": int,
    "minReplicaCount": int, "maxReplicaCount": int,
    "fallback": {"failureThreshold": int, "replicas": int, "behavior": str},
    "advanced": {
        "restoreToOriginalReplicaCount": bool, "horizontalPodAutoscalerConfig": dict, "scalingModifiers": dict,
    },
    "triggers": [{"type": str, "name": str, "metadata": dict, "authenticationRef": {"name": str, "kind": str},
                  "metricType": str, "useCachedMetrics": bool}],
}  # fmt: skip
"""The fields of a ScaledObject's spec (keda.sh/v1alpha1), as KEDA documents them."""


def misfits(value: Any, form: Any, where: str = "spec") -> list[str]:
    """What of ``value`` is not of ``form``: an unknown field, or another type."""
    if isinstance(form, type):
        return [] if type(value) is form else [f"{where}: {value!r} is no {form.__name__}"]
    if isinstance(form, list):
        return [one for number, part in enumerate(value) for one in misfits(part, form[0], f"{where}[{number}]")]
    unknown = [f"{where}.{name} is not known" for name in value if name not in form]
    known = {name: part for name, part in value.items() if name in form}
    return unknown + [one for name, part in known.items() for one in misfits(part, form[name], f"{where}.{name}")]


def test_keda_scales_a_deployment_that_there_is_by_what_a_scheduler_answers() -> None:
    scaled = named("ScaledObject", "lcq-agent-gpu")["spec"]
    assert misfits(scaled, SCALED_OBJECT) == []
    assert misfits({"minReplicas": 1, "fallback": {"replicas": "1"}}, SCALED_OBJECT) == [
        "spec.minReplicas is not known", "spec.fallback.replicas: '1' is no int",
    ]  # fmt: skip
    assert scaled["fallback"]["behavior"] in ("static", "currentReplicas", "currentReplicasIfHigher")
    assert named("Deployment", scaled["scaleTargetRef"]["name"])
    assert scaled["minReplicaCount"] <= scaled["maxReplicaCount"]
    (trigger,) = scaled["triggers"]
    told = trigger["metadata"]
    assert trigger["type"] == "metrics-api"
    assert {"url", "valueLocation", "targetValue"} <= set(told) <= TRIGGER_METADATA
    assert all(isinstance(value, str) for value in told.values()), "KEDA takes no other"
    # The token: of a viewer, as Bearer.
    assert told["authMode"] == "bearer"
    authentication = named("TriggerAuthentication", trigger["authenticationRef"]["name"])["spec"]
    assert [one["parameter"] for one in authentication["secretTargetRef"]] == ["token"]
    url = urlsplit(told["url"])
    needed = needed_role("GET", url.path)
    assert needed is not None
    assert Role.VIEWER.covers(needed)
    assert "lcq token keda --role viewer" in PAGE
    # The name by which it is asked for is one that HTTP answers to.
    file = yaml.safe_load(named("ConfigMap", "lcq-settings")["data"]["config.yaml"])
    assert url.hostname in file["http"]["hosts"]
    assert url.port == DistributedConfig().scheduler_port
    assert set(parse_qs(url.query)) == {"target_wait_s"}
    # GJSON: of a list, the first one whose field is this; of that, a field.
    path = re.fullmatch(r'(\w+)\.#\((\w+)=="([\w-]+)"\)\.(\w+)', told["valueLocation"])
    assert path
    among, field, value, wanted = path.groups()
    records = [QueueRecord(config=config, counts={}) for config in DEFAULT_QUEUES]
    answer = scale(Fleet(queues=DEFAULT_QUEUES, nodes=()), records, {}, now_ms=0).model_dump(mode="json")
    (found,) = [one for one in answer[among] if one[field] == value]
    assert type(found[wanted]) is int


DIRECTIVES = {
    "job-name", "array", "ntasks", "cpus-per-task", "mem", "gres", "time", "signal", "requeue", "open-mode", "output",
}  # fmt: skip
"""Options of sbatch, as its manual has them."""


def test_the_batch_script_is_shell_has_directives_of_slurm_and_calls_the_agent_rightly() -> None:
    script = SBATCH.read_text()
    subprocess.run(["bash", "-n", str(SBATCH)], check=True, timeout=60)
    if (linter := shutil.which("shellcheck")) is not None:
        subprocess.run([linter, str(SBATCH)], check=True, timeout=60)
    given = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script, re.MULTILINE))
    assert set(given) <= DIRECTIVES
    head = script[: script.index("set -euo")]
    assert head.count("#SBATCH") == len(given), "Slurm reads none after the first command"
    signal = re.fullmatch(r"B:TERM@(\d+)", given["signal"])
    drain = re.search(r'LCQ_AGENT__DRAIN_S="\$\{LCQ_AGENT__DRAIN_S:-(\d+)\}"', script)
    assert signal
    assert drain
    assert int(signal[1]) >= int(drain[1]) + SLACK_S
    assert int(drain[1]) < 30, "Slurm's KillWait"
    called = ours_in(script)
    assert [words[0] for words in called] == ["lcq", "lcq-agent", "lcq-agent", "lcq"]
    assert [complaint(words) for words in called] == [""] * 4


NOMAD_KEYS: dict[str, set[str]] = {
    "variable": {"type", "default", "description"},
    "job": {"datacenters", "type", "group", "namespace", "priority", "update"},
    "group": {"count", "ephemeral_disk", "restart", "volume", "task", "network", "update"},
    "ephemeral_disk": {"size", "sticky", "migrate"},
    "restart": {"attempts", "interval", "delay", "mode"},
    "volume": {"type", "source", "read_only"},
    "task": {
        "driver",
        "kill_signal",
        "kill_timeout",
        "config",
        "volume_mount",
        "env",
        "template",
        "resources",
        "lifecycle",
    },
    "lifecycle": {"hook", "sidecar"},
    "config": {"image", "entrypoint", "command", "args"},
    "volume_mount": {"volume", "destination", "read_only"},
    "template": {"destination", "env", "change_mode", "data", "perms", "uid", "gid"},
    "resources": {"cores", "cpu", "memory", "device"},
    "device": {"count"},
}
"""What may stand in each block that is used, as Nomad's job specification has it."""
LABELLED = {"variable", "job", "group", "volume", "task", "device"}


def blocks(kind: str, among: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each block in a parsed file with its kind and its label, checking what stands in it."""
    for one in among.get(kind, ()):
        label, body = (
            next((key, value) for key, value in one.items() if isinstance(value, dict))
            if kind in LABELLED
            else ("", one)
        )
        keys = {key for key in body if not key.startswith("__")}
        if kind != "env":
            assert keys <= NOMAD_KEYS[kind], (kind, keys - NOMAD_KEYS[kind])
        yield kind, label.strip('"'), body
        for inner in sorted(keys & {*NOMAD_KEYS, "env"}):
            if isinstance(body[inner], list) and isinstance(body[inner][0], dict):
                yield from blocks(inner, body)


def test_the_nomad_job_is_hcl_of_documented_keys_and_leaves_the_agent_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with NOMAD.open() as file:
        parsed = hcl2.load(file)
    found: dict[str, dict[str, Any]] = {"": {}}  # by task, the blocks in it
    within = ""
    for top in ("variable", "job"):
        for kind, label, body in blocks(top, parsed):
            if kind == "task":
                within = label
                found[within] = {"task": body}
            found[within][kind if kind == "task" else f"{kind} {label}".strip()] = body
    agent, key = found["agent"], found["key"]
    assert agent["task"]["kill_signal"] == '"SIGTERM"'
    assert agent["device nvidia/gpu"]["count"] == 1
    mount = agent["volume_mount"]
    assert any(f"volume {mount['volume'].strip(chr(34))}" in one for one in found.values())
    words = [json.loads(word) for word in agent["config"]["args"]]
    assert complaint(["lcq-agent", *words]) == ""
    assert key["lifecycle"]["hook"] == '"prestart"'
    invite, join = ours_in(json.loads(key["config"]["args"][0]))
    assert [complaint(invite), complaint(join)] == ["", ""]
    for name in ("LCQ_AGENT__NAME", "LCQ_DATA_DIR"):
        assert key["env"][name] == agent["env"][name]
    for name, value in agent["env"].items():
        if not name.startswith("__"):
            plain = str(json.loads(value)).replace("${NOMAD_ALLOC_INDEX}", "0").replace("${NOMAD_ALLOC_DIR}", "/alloc")
            monkeypatch.setenv(name, plain.replace("${node.unique.name}", "client-1"))
    assert "LCQ_STORAGE__TOKEN={{" in agent["template"]["data"]
    monkeypatch.setenv("LCQ_STORAGE__TOKEN", "secret")
    monkeypatch.chdir(tmp_path)
    config = load()
    wait = re.fullmatch(r'"(\d+)s"', agent["task"]["kill_timeout"])
    assert wait
    assert int(wait[1]) >= config.agent.drain_s + SLACK_S
    assert config.agent.name == "nomad-0"
    assert [str(root) for root in config.storage.roots] == [mount["destination"].strip('"')]
