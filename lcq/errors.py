"""The errors of LCQ, each named after the situation, carrying its facts, saying what to do.

LcqError
├── InvalidInput            what a person or program gave cannot be used
│   ├── InvalidConfig       a configuration value, with its file and key
│   ├── InvalidToken        an enrolment token that is none, or is used up
│   ├── UnknownModel
│   ├── UnknownQueue
│   ├── AmbiguousId         an id prefix fits several
│   ├── OutsideRoots        a path that leads out of storage.roots
│   ├── AddressRefused      what a task names is no place that tasks may use here
│   ├── BlobMismatch        bytes that are not those which their SHA-256 says
│   ├── BlobTooLarge        more bytes than a picture may have
│   ├── ManifestUnusable    the manifest of a folder of results
│   ├── BackupUnusable      a file is no backup of LCQ, or not the whole of one
│   └── WeightsRefused      a weight file is not on the list, or not what it should be
├── NotFound
│   ├── TaskNotFound
│   ├── NodeNotFound
│   ├── DeviceNotFound
│   ├── FunctionNotFound    no node calls a function of that name
│   ├── JobNotFound
│   ├── CauseNotFound
│   ├── ScheduleNotFound
│   ├── AlertNotFound       no rule of alerts, or no receiver, has that name
│   ├── NotSilenced         what is to be heard again was not silenced
│   ├── BlobNotFound        storage has no such bytes
│   ├── AddressUnknown      an address for one transfer that was never lent, or whose time is over
│   ├── ResultGone          a result is not where it was left, or not for this host to see
│   └── WeightsNotInstalled
├── TransitionRefused       the task's real state does not allow the move
├── NothingToUndo           an act of that kind, or of that age, cannot be taken back
├── IdempotencyConflict     the same key was used for another task
├── TooManyRequirements     too many different sets of labels are waited for at once
├── NodeNameTaken           another agent, of another data folder, lives under this node's name
├── QueueFull               as many tasks wait in a queue as may
├── TooSoon                 a user has submitted as many tasks as it may in a minute
├── BudgetSpent             functions may cost no more now
├── AgentTooOld             a node's agent does not know what it is to be told
├── AccessDenied            this client may not do this
│   ├── Unauthenticated     it bears no token, or none that is known
│   ├── ForeignPage         a web page of another origin, or another host's name
│   ├── KeyForbids          the key of who asks is not for that, or not for that node
│   └── NotAdmitted         a scheduler's sockets do not let this host in, or it does not trust them
├── TooLarge                a request is over the limits of http
│   └── HeadersTooLarge     before its body begins
├── TooManyRequests         a client asks more often than it may
├── AnswerLate              the picture that a request waited for was not done in time
├── InternalError           a bug: a command failed inside the scheduler
├── NoThumbnail             no node can make small pictures of a task now
│   └── NodeElsewhere       those that could speak to another scheduler
├── NoLog                   a node cannot be asked for its log now
│   ├── LogElsewhere        another scheduler can
│   └── LogNotKept          its agent keeps none
├── AddressUsed             an address for one transfer has had it
├── AddressBusy             its transfer is under way
├── UploadConflict          an upload goes on elsewhere, or from another byte
├── StorageFull             blobs have as much room as they may
├── StorageUnreachable      the cluster's bytes cannot be got or put now
│   └── SourceUnreachable   those of another place that a task names
├── StaleBoot               a node speaks with a boot id that has been replaced
├── ProtocolError           a message that cannot be understood
│   ├── UnknownCommand
│   └── VersionMismatch
├── SchedulerUnreachable    no scheduler answered
├── NoMulticast             the LAN cannot be listened to
├── SeveralClusters         several are announced on the LAN, and nobody said which is meant
├── StateUnavailable        Redis does not answer, or refuses what was asked of it
│   └── StateOverloaded     Redis is full: submits are refused, running tasks finish
├── UnsafeState             Redis is set so that it may lose data
├── DownloadFailed          no address of a model gave its file
├── StateDamaged            Redis holds what no move of ours has written
├── StateFormatMismatch     Redis holds the state of another version of LCQ
├── BackupFailed            a backup cannot be made now
│   └── RestoreRefused      a backup may not be put there
├── ArchiveUnusable         the archive cannot be read or written
└── DiskFull                there is no room for what was to be written
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


class LcqError(Exception):
    """What LCQ refuses or fails to do: one line for people, a code for programs, a hint what to do.

    ``code`` is from a closed list (every subclass has one) and travels on the wire.
    """

    code = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InvalidInput(LcqError):
    code = "invalid_input"


class InvalidConfig(InvalidInput):
    """``problems``: what is wrong, one by one (``lcq.settings.problems.Problem``), where that was worked out."""

    code = "invalid_config"
    problems: tuple[Any, ...] = ()


class InvalidToken(InvalidInput):
    code = "invalid_token"

    def __init__(self, found: str, *, hint: str = "") -> None:
        super().__init__(
            f"this enrolment token cannot be used: {found}",
            hint=hint or "an operator makes another one: lcq keys invite --role agent",
        )


def _suggestion(name: str, known: Iterable[str]) -> str:
    """Say the nearest known name, or all of them: ``did you mean …?``."""
    import difflib

    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return "known: " + ", ".join(names) if names else "none is known yet"


class UnknownModel(InvalidInput):
    code = "unknown_model"

    def __init__(self, model: str, known: Iterable[str], *, image: str = "") -> None:
        self.model = model
        subject = f"{image}: " if image else ""
        super().__init__(f"{subject}no such model: {model!r}", hint=_suggestion(model, known))


class UnknownQueue(InvalidInput):
    code = "unknown_queue"

    def __init__(self, queue: str, known: Iterable[str], *, image: str = "") -> None:
        self.queue = queue
        subject = f"{image}: " if image else ""
        super().__init__(f"{subject}no such queue: {queue!r}", hint=_suggestion(queue, known))


class AmbiguousId(InvalidInput):
    code = "ambiguous_id"

    def __init__(self, prefix: str, matches: Iterable[str]) -> None:
        self.prefix = prefix
        self.matches = tuple(matches)
        shown = ", ".join(self.matches[:3])
        super().__init__(f"{prefix!r} fits several: {shown} …", hint="type more of the id")


class OutsideRoots(InvalidInput):
    code = "path_outside_roots"

    def __init__(self, path: str, roots: Iterable[object]) -> None:
        self.path = path
        plain = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in path)
        super().__init__(
            f"{plain[-300:]!r} is in none of the folders that tasks may use here: {', '.join(map(str, roots))}",
            hint="put the file into one of them, or add its folder to storage.roots",
        )


class AddressRefused(InvalidInput):
    """``address`` is shown without what may be secret in it."""

    code = "address_refused"

    def __init__(self, address: str, why: str, *, hint: str) -> None:
        self.address = address
        super().__init__(f"{shown_address(address)} cannot be used: {why}", hint=hint)


class BlobMismatch(InvalidInput):
    code = "blob_mismatch"

    def __init__(self, expected: str, found: str) -> None:
        self.expected, self.found = expected, found
        super().__init__(
            f"the bytes that came are {found}, not {expected}", hint="send them again; what had come is thrown away"
        )


class BlobTooLarge(InvalidInput):
    """``limit``, in bytes."""

    code = "blob_too_large"

    def __init__(self, what: str, limit: int, found: int | None = None) -> None:
        self.limit = limit
        of = f"{found:,} bytes" if found is not None else "more bytes"
        super().__init__(f"{what}: {of}, over the limit of {limit:,}", hint="see limits.image_bytes")


class ManifestUnusable(InvalidInput):
    """The manifest of a folder of results cannot be read or written. ``found`` says why."""

    code = "manifest_unusable"

    def __init__(self, path: object, found: str) -> None:
        self.path = str(path)
        self.found = found
        super().__init__(
            f"the manifest {path}: {found}",
            hint="name another folder with --out, or move that file away: then all of the folder is done anew",
        )


class WeightsRefused(InvalidInput):
    """A file is not taken as a model's weights. ``found`` says what is wrong with it."""

    code = "weights_refused"

    def __init__(self, file: str, found: str, *, hint: str) -> None:
        self.file = file
        self.found = found
        super().__init__(f"{file}: {found}", hint=hint)


class NotFound(LcqError):
    code = "not_found"


class TaskNotFound(NotFound):
    code = "task_not_found"

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        super().__init__(
            f"no task {task_id!r}",
            hint="it was never submitted, or its record has expired; lcq tasks lists them",
        )


class NodeNotFound(NotFound):
    code = "node_not_found"

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        super().__init__(f"no node {node_id!r}", hint="lcq nodes lists them")


class DeviceNotFound(NotFound):
    code = "device_not_found"

    def __init__(self, node_id: str, device: str, known: Iterable[str] = ()) -> None:
        self.node_id = node_id
        self.device = device
        names = ", ".join(known) or "none that is known"
        super().__init__(f"node {node_id} has no device {device!r}; it has {names}", hint="lcq nodes lists them")


class FunctionNotFound(NotFound):
    code = "function_not_found"

    def __init__(self, name: str, known: Iterable[str], *, node: str = "") -> None:
        self.name = name
        super().__init__(
            f"node {node} calls no function {name}" if node else f"no node calls a function {name}",
            hint=f"there are: {', '.join(sorted(known)) or 'none (agent.functions, docs/serverless.md)'}",
        )


class BudgetSpent(LcqError):
    """What functions may cost is used up, or reserved for what runs."""

    code = "budget_spent"

    def __init__(self, found: str) -> None:
        super().__init__(found, hint="wait for the next hour or day, or raise serverless.budget ('lcq spend' shows it)")


class AgentTooOld(LcqError):
    """The agent of a node is of an earlier version, and does not know what it is to be told."""

    code = "agent_too_old"

    def __init__(self, node_id: str, wish: str, version: str = "") -> None:
        self.node_id = node_id
        super().__init__(
            f"the agent of node {node_id} (lcq {version or 'of an unknown version'}) is too old to {wish}",
            hint="nothing was changed; install this lcq there and start the agent again",
        )


class JobNotFound(NotFound):
    code = "job_not_found"

    def __init__(self, job: str) -> None:
        self.job = job
        super().__init__(f"no job {job!r}", hint="lcq jobs lists them")


class CauseNotFound(NotFound):
    code = "cause_not_found"

    def __init__(self, cause: str, text: str = "", *, acknowledged: bool = False) -> None:
        self.cause = cause
        what = f"nobody has acknowledged {cause!r}" if acknowledged else f"no task has failed of {cause!r}"
        super().__init__(what + (f": {text}" if text else ""), hint="lcq causes shows what tasks died of")


class AlertNotFound(NotFound):
    code = "alert_not_found"

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        """``what``: "rule" or "receiver"."""
        self.name = name
        listed = ", ".join(sorted(known)) or "none"
        super().__init__(f"no {what} of alerts is called {name!r}", hint=f"there are: {listed}")


class NotSilenced(NotFound):
    code = "not_silenced"

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"{name!r} is not silenced", hint="lcq alerts list shows what is")


class BlobNotFound(NotFound):
    code = "blob_not_found"

    def __init__(self, sha256: str) -> None:
        self.sha256 = sha256
        super().__init__(
            f"no blob {sha256}", hint="it was never uploaded whole, or nobody needed it for long; upload it again"
        )


class ResultGone(NotFound):
    code = "result_gone"

    def __init__(self, task_id: str, found: str) -> None:
        self.task_id = task_id
        super().__init__(
            f"the result of task {task_id} cannot be read here: {found}", hint="it may lie on the disk of its node"
        )


class WeightsNotInstalled(NotFound):
    code = "weights_not_installed"

    def __init__(self, model: str, found: str = "") -> None:
        self.model = model
        super().__init__(
            f"no weights for {model!r} here" + (f": {found}" if found else ""),
            hint=f"lcq models pull {model}, or lcq models add FILE --name {model}",
        )


class TransitionRefused(LcqError):
    """The task is in a state from which this move is not legal; ``state`` is its real one."""

    code = "transition_refused"

    def __init__(self, move: str, subject: str, state: str, *, hint: str = "") -> None:
        self.move = move
        self.subject = subject
        self.state = state
        verb = move.rpartition("_")[0] or move  # cancel_task: the subject says that it is a task
        super().__init__(f"cannot {verb.replace('_', ' ')} {subject}: it is {state}", hint=hint)


class NothingToUndo(LcqError):
    code = "nothing_to_undo"

    def __init__(self, act: str, subject: str = "") -> None:
        self.act = act
        what = f" to {subject}" if subject else ""
        super().__init__(
            f"act {act} has done nothing{what} that can still be taken back",
            hint="for 15 s: retry, reroute, priority, deadline, privacy, comment, ack, pause, resume,"
            " cancel of what waits",
        )


class IdempotencyConflict(LcqError):
    code = "idempotency_conflict"

    def __init__(self, key: str, task_id: str) -> None:
        self.key = key
        self.task_id = task_id
        super().__init__(
            f"the idempotency key {key!r} already belongs to task {task_id}, which asks for something else",
            hint="use a new key for a new task",
        )


class TooManyRequirements(LcqError):
    code = "too_many_requirements"

    def __init__(self, required: str, most: int) -> None:
        super().__init__(
            f"tasks that wait require {most} different sets of labels already: none can wait for {required} too",
            hint="wait until some have started, or require less exact labels, such as a rack instead of a node",
        )


class QueueFull(LcqError):
    """A queue has as many tasks waiting as ``quotas.queued`` allows: nothing was taken in."""

    code = "queue_full"

    def __init__(self, queue: str, waiting: int, most: int, *, displaces: bool = False) -> None:
        self.queue = queue
        self.waiting = waiting
        super().__init__(
            f"queue {queue} is full: {waiting} tasks wait, at most {most} may",
            hint="submit it again later, with the same key if you like"
            + ("; all that waits there is urgent" if displaces else "")
            + ", or have quotas.queued raised",
        )


class TooSoon(LcqError):
    """A user has submitted more than ``quotas.per_minute`` allows. ``again_s``: when to come again."""

    code = "too_soon"

    def __init__(self, user: str, per_minute: float, again_s: float) -> None:
        self.user = user
        self.again_s = again_s
        super().__init__(
            f"user {user} may submit {per_minute:g} tasks a minute, and has",
            hint=f"submit this one again in {again_s:.1f} s",
        )


class StaleBoot(LcqError):
    code = "stale_boot"

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        super().__init__(
            f"node {node_id} is not registered with this boot id",
            hint="say hello again; if another agent runs under this name, give one of them --name",
        )


class NodeNameTaken(LcqError):
    code = "node_name_taken"

    def __init__(self, node_id: str, host: str = "") -> None:
        self.node_id = node_id
        where = f" on host {host}" if host else ""
        super().__init__(
            f"another agent{where}, with another data folder, is node {node_id} now",
            hint="give one of them another --name; or wait until that one has gone",
        )


class ProtocolError(LcqError):
    code = "protocol_error"
    request_id = ""  # which request to answer, where that could be read
    peer_version: int | None = None  # the protocol to answer in, where it is one that we speak


class UnknownCommand(ProtocolError):
    code = "unknown_command"


class VersionMismatch(ProtocolError):
    code = "version_mismatch"


class SchedulerUnreachable(LcqError):
    code = "scheduler_unreachable"

    def __init__(self, endpoint: str, waited_s: float) -> None:
        self.endpoint = endpoint
        super().__init__(
            f"no scheduler answers at {endpoint} (waited {waited_s:g} s)",
            hint="start one with 'lcq up' or 'lcq scheduler', or name it with --scheduler HOST:PORT",
        )


class NoMulticast(LcqError):
    code = "no_multicast"

    def __init__(self, found: str) -> None:
        super().__init__(
            f"schedulers cannot be looked for on the LAN: {found}",
            hint="name the scheduler by --scheduler HOST:PORT, or other interfaces by discovery.interfaces",
        )


class SeveralClusters(LcqError):
    code = "several_clusters"

    def __init__(self, found: str) -> None:
        super().__init__(
            found, hint="set discovery.cluster to the name or the id of one, or name a scheduler by --scheduler"
        )


_ACCOUNT = re.compile(r"//[^/@]*@")
_REDIS_ACCOUNT = re.compile(r"^(rediss?(?:\+sentinel)?:)//.*@")  # one not encoded may hold any character
_SECRET_OPTION = re.compile(r"([?&][^=&]*password=)[^&]*", re.IGNORECASE)


def shown_address(address: str) -> str:
    """``address`` as it may be shown and logged: on one line, without accounts, and without what follows a ``?``."""
    plain = without_password(address).partition("?")
    line = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in plain[0])
    return line[-300:] + ("?…" if plain[1] else "")


def without_password(url: str) -> str:
    """``url`` as it may be shown and logged."""
    return _SECRET_OPTION.sub(r"\1...", _ACCOUNT.sub("//", _REDIS_ACCOUNT.sub(r"\1//", url)))


class StateUnavailable(LcqError):
    """``refused``: it did answer, and ``found`` is what it said."""

    code = "state_unavailable"

    def __init__(self, url: str, found: str, *, refused: bool = False, hint: str = "") -> None:
        self.url = without_password(url)
        super().__init__(
            f"Redis at {self.url} {'refuses' if refused else 'does not answer'}: {found}",
            hint=hint or "start it (redis-server, or let 'lcq up' run a private one), or set redis.url",
        )


class StateOverloaded(StateUnavailable):
    code = "state_overloaded"

    def __init__(self, url: str) -> None:
        self.url = without_password(url)
        LcqError.__init__(
            self,
            f"Redis at {self.url} is full and refuses new tasks; running ones still finish",
            hint="raise its maxmemory, or wait until finished tasks expire",
        )


class UnsafeState(LcqError):
    code = "unsafe_state"


class StateDamaged(LcqError):
    code = "state_damaged"

    def __init__(self, url: str, found: str) -> None:
        super().__init__(
            f"Redis at {without_password(url)} cannot do what was asked with what it holds: {found}",
            hint="a key of ours was changed by somebody else, or this is a bug of LCQ; the log has the whole story",
        )


class AccessDenied(LcqError):
    """``who`` may not do ``what``, for which ``needed`` is the least role."""

    code = "access_denied"

    def __init__(self, who: str, what: str, needed: str) -> None:
        super().__init__(f"{who} may not {what}", hint=f"it takes a token of the role {needed}; see http.tokens")


class Unauthenticated(AccessDenied):
    code = "unauthenticated"

    def __init__(self, found: str) -> None:
        LcqError.__init__(
            self, found, hint="send a token of http.tokens as 'Authorization: Bearer …'; lcq token makes one"
        )


class ForeignPage(AccessDenied):
    code = "foreign_page"

    def __init__(self, found: str, *, hint: str) -> None:
        LcqError.__init__(self, found, hint=hint)


class KeyForbids(AccessDenied):
    """``needed``: the roles whose keys may do it."""

    code = "key_forbids"

    def __init__(self, found: str, needed: Iterable[str], *, hint: str = "") -> None:
        roles = " or ".join(needed)
        least = roles.partition(" ")[0]  # a viewer that is to submit need not be an operator
        LcqError.__init__(
            self, found, hint=hint or f"it takes a key of the role {roles}: lcq keys invite --role {least}"
        )


class NotAdmitted(AccessDenied):
    """No connection comes about, because of keys: ``found`` says what happened at ``endpoint``."""

    code = "not_admitted"

    def __init__(self, endpoint: str, found: str, *, hint: str) -> None:
        self.endpoint = endpoint
        LcqError.__init__(self, f"the scheduler at {endpoint.removeprefix('tcp://')} {found}", hint=hint)


class AddressUnknown(NotFound):
    code = "address_unknown"

    def __init__(self) -> None:
        super().__init__(
            "there is no such address, or its time is over",
            hint="it was good for one transfer of one attempt; the next attempt has others",
        )


class AddressUsed(LcqError):
    code = "address_used"

    def __init__(self) -> None:
        super().__init__("this address was good for one transfer, and has had it", hint="the next attempt has others")


class AddressBusy(LcqError):
    """``again_s``: when it may be tried again, unless that transfer is whole by then."""

    code = "address_busy"

    def __init__(self, again_s: float) -> None:
        self.again_s = again_s
        super().__init__("a transfer by this address is under way", hint="come again where it breaks off")


class TooLarge(LcqError):
    code = "too_large"


class HeadersTooLarge(TooLarge):
    code = "headers_too_large"


class TooManyRequests(LcqError):
    """``again_s``: when to come again."""

    code = "too_many_requests"

    def __init__(self, who: str, what: str, again_s: float) -> None:
        self.again_s = again_s
        super().__init__(f"{who} {what}", hint=f"ask again in {again_s:.1f} s")


class AnswerLate(LcqError):
    code = "answer_late"

    def __init__(self, task_id: str, waited_s: float, why: str) -> None:
        self.task_id = task_id
        super().__init__(
            f"task {task_id} was not done within {waited_s:g} s, and is cancelled: {why}",
            hint="submit it to /v1/tasks, which does not wait; or raise http.answer_s",
        )


class InternalError(LcqError):
    code = "internal_error"


class NoThumbnail(LcqError):
    code = "no_thumbnail"

    def __init__(self, task_id: str, why: str) -> None:
        self.task_id = task_id
        self.why = why
        super().__init__(f"no node can show the pictures of {task_id}: {why}")


class UploadConflict(LcqError):
    """``uploaded``: how many bytes are here, from where the upload can go on."""

    code = "upload_conflict"

    def __init__(self, sha256: str, why: str, *, uploaded: int) -> None:
        self.uploaded = uploaded
        super().__init__(f"the upload of {sha256}: {why}", hint=f"ask how far it is, and go on from there ({uploaded})")


class StorageFull(LcqError):
    code = "storage_full"

    def __init__(self, where: str, why: str) -> None:
        super().__init__(
            f"no room for more bytes in {where}: {why}",
            hint="try again later: what no task needs goes by itself; or see storage.blobs in lcq.yaml",
        )


class StorageUnreachable(LcqError):
    code = "storage_unreachable"

    def __init__(self, address: str, why: str, *, hint: str = "it is tried again") -> None:
        self.address, self.why = shown_address(address), why
        super().__init__(f"{self.address}: {why}", hint=hint)


class SourceUnreachable(StorageUnreachable):
    code = "source_unreachable"


class NodeElsewhere(NoThumbnail):
    code = "node_elsewhere"


class NoLog(LcqError):
    code = "no_log"

    def __init__(self, node_id: str, why: str, *, of: str = "") -> None:
        """``of``: what has no log, where that is not the node."""
        self.node_id = node_id
        self.why = why
        super().__init__(f"the log of {of or node_id} cannot be read now: {why}")


class LogElsewhere(NoLog):
    code = "log_elsewhere"


class LogNotKept(NoLog):
    code = "log_not_kept"


class StateFormatMismatch(LcqError):
    """Another version of LCQ writes this state, in a form that this one does not know."""

    code = "state_format_mismatch"

    def __init__(self, url: str, found: str, ours: int) -> None:
        self.found = found
        self.ours = ours
        if found.startswith("restoring "):
            super().__init__(
                f"a backup is being put into Redis at {without_password(url)}, since {found.partition(' ')[2]}",
                hint="wait for 'lcq restore'; where that was broken off, begin it again with --replace",
            )
            return
        super().__init__(
            f"Redis at {without_password(url)} holds state of format {found}, this LCQ writes format {ours}",
            hint="run the LCQ version that wrote it, or a newer one; 'lcq version' tells what runs",
        )


class BackupFailed(LcqError):
    code = "backup_failed"


class RestoreRefused(BackupFailed):
    code = "restore_refused"


class ScheduleNotFound(NotFound):
    code = "schedule_not_found"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        super().__init__(
            f"no schedule {name}", hint=f"the settings have {', '.join(known) or 'none: see schedules in lcq.yaml'}"
        )


class BackupUnusable(InvalidInput):
    code = "backup_unusable"

    def __init__(self, path: object, found: str, *, hint: str = "") -> None:
        self.found = found
        super().__init__(f"{path} cannot be used as a backup: {found}", hint=hint or "take another one")


class DownloadFailed(LcqError):
    """``tried``: each address with what came of it."""

    code = "download_failed"

    def __init__(self, model: str, tried: Iterable[str], *, hint: str) -> None:
        self.model = model
        self.tried = tuple(tried)
        super().__init__(f"cannot download {model}: " + "; ".join(self.tried), hint=hint)


class ArchiveUnusable(LcqError):
    code = "archive_unusable"

    def __init__(self, where: object, found: str, *, hint: str = "") -> None:
        self.found = found
        super().__init__(
            f"the archive cannot use {where}: {found}", hint=hint or "see archive.folder: schedulers write there"
        )


class DiskFull(LcqError):
    code = "disk_full"

    def __init__(self, folder: str, needed: str = "", *, hint: str = "") -> None:
        self.folder = folder
        super().__init__(
            f"no room left in {folder}" + (f": {needed}" if needed else ""),
            hint=hint or "free some, or have weights kept elsewhere with models.folder",
        )


ERROR_BY_CODE: dict[str, type[LcqError]] = {
    kind.code: kind
    for kind in (
        LcqError, InvalidInput, InvalidConfig, UnknownModel, UnknownQueue, AmbiguousId, NotFound, TaskNotFound,
        NodeNotFound, JobNotFound, CauseNotFound, TransitionRefused, IdempotencyConflict, StaleBoot, ProtocolError,
        UnknownCommand, VersionMismatch, SchedulerUnreachable, StateUnavailable, StateOverloaded, UnsafeState,
        WeightsRefused, WeightsNotInstalled, DownloadFailed, DiskFull, StateDamaged, StateFormatMismatch,
        OutsideRoots, TooManyRequirements, ManifestUnusable, NoMulticast, SeveralClusters,
        NodeNameTaken, QueueFull, TooSoon, DeviceNotFound, AgentTooOld, NothingToUndo, NoThumbnail,
        FunctionNotFound, BudgetSpent,
        NodeElsewhere, NoLog, LogElsewhere, LogNotKept, AddressRefused, BlobMismatch,
        BlobTooLarge, BlobNotFound, UploadConflict,
        StorageFull, StorageUnreachable, SourceUnreachable, AccessDenied, Unauthenticated, ForeignPage, TooLarge,
        TooManyRequests, AnswerLate, InternalError, ResultGone, HeadersTooLarge,
        BackupFailed, RestoreRefused, BackupUnusable, ArchiveUnusable,
        ScheduleNotFound,
        InvalidToken, KeyForbids, NotAdmitted,
        AlertNotFound, NotSilenced,
        AddressUnknown, AddressUsed, AddressBusy,
    )
}  # fmt: skip


def error_from_wire(code: str, message: str, hint: str) -> LcqError:
    """Rebuild the error that a peer answered with, as the class that its code names.

    The facts that only its constructor knew stay behind; message, hint and class are the same.
    """
    kind = ERROR_BY_CODE.get(code, LcqError)
    error = kind.__new__(kind)
    LcqError.__init__(error, message, hint=hint)
    return error
