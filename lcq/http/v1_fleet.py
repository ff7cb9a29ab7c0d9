"""/v1 beside tasks: jobs, nodes, queues, acts, causes, costs, autoscale."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from lcq import __version__
from lcq.errors import NodeNotFound, UnknownQueue
from lcq.http.line import Line, act_id, caller_in
from lcq.http.shapes import (
    Acknowledged,
    ActPage,
    CauseList,
    Deadline,
    DeviceSet,
    Did,
    DrainedIdle,
    JobActed,
    JobPage,
    Key,
    Labelled,
    Name,
    NodeList,
    OnDevice,
    PrioritisedJob,
    QueueList,
    Reason,
    ReroutedJob,
    RetriedJob,
    Warmth,
)
from lcq.http.v1_tasks import REFUSED, next_link, told
from lcq.models import JobReport, JobSummary, NodeRecord, QueueRecord
from lcq.report_page import report_page
from lcq.usage import By, as_csv
from lcq.wire import (
    Acknowledge,
    Act,
    Activate,
    Acts,
    AskFunctions,
    AskSpend,
    Autoscale,
    AutoscaleAnswer,
    BulkAnswer,
    CancelJob,
    Costs,
    CostsAnswer,
    Dead,
    Drain,
    DrainIdle,
    DrainIdleAnswer,
    FunctionsAnswer,
    Info,
    InfoAnswer,
    JobActAnswer,
    Jobs,
    LabelNode,
    Nodes,
    Pause,
    PauseJob,
    PrioritiseJob,
    Quarantine,
    Queues,
    Release,
    Report,
    ReportAnswer,
    ReportJob,
    RerouteJob,
    Resume,
    ResumeJob,
    RetryJob,
    SetDevice,
    SpendAnswer,
    StopNode,
    Undo,
    WarmFunction,
    WarmFunctionAnswer,
)

Called = Annotated[str, Path(min_length=1, max_length=128, pattern=r"^[^\x00/]+$")]
_MOST_AT_ONCE = 1000
# A page of plots and tables runs nothing and asks for nothing.
_PLAIN_PAGE = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}


def router(line: Line) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1", responses=REFUSED)

    async def did(request: Request, kind: type[Act[Any]], wish: Any, key: str | None, **values: Any) -> Response:
        act = _made(request, kind, wish, key, **values)
        await line.ask(act)
        return told(Did(act=act.id))

    # ------------------------------------------------------------ jobs

    @routes.get("/jobs", response_model=JobPage, tags=["jobs"])
    async def list_jobs(
        request: Request, name: Name = "", limit: Annotated[int, Query(ge=1, le=_MOST_AT_ONCE)] = 100, cursor: Name = ""
    ) -> Response:
        """Newest first, with counts and when they are likely to be done; ``cursor`` is the last job of a page."""
        found = (await line.ask(Jobs(name=name, limit=limit, after=cursor))).jobs
        following = found[-1].name if len(found) == limit and not name else ""
        page = JobPage(jobs=list(found), next=following)
        return told(page, headers=next_link(request, "cursor", following))

    @routes.get("/jobs/{name}", response_model=JobSummary, tags=["jobs"])
    async def get_job(name: Called) -> Response:
        """A job with its counts."""
        return told((await line.ask(Jobs(name=name))).jobs[0])

    @routes.get("/jobs/{name}/report", response_model=JobReport, tags=["jobs"])
    async def report_job(name: Called) -> Response:
        """What has become of it: done, skipped and why, failed and why, what it took."""
        return told((await line.ask(ReportJob(job=name))).report)

    @routes.post("/jobs/{name}/pause", response_model=Did, tags=["jobs"])
    async def pause_job(request: Request, name: Called, wish: Reason | None = None, key: Key = None) -> Response:
        """None of its tasks starts until it is resumed."""
        return await did(request, PauseJob, wish, key, job=name)

    @routes.post("/jobs/{name}/resume", response_model=Did, tags=["jobs"])
    async def resume_job(request: Request, name: Called, wish: Reason | None = None, key: Key = None) -> Response:
        """Its tasks wait in their old places again."""
        return await did(request, ResumeJob, wish, key, job=name)

    @routes.post("/jobs/{name}/cancel", response_model=JobActed, tags=["jobs"])
    async def cancel_job(request: Request, name: Called, wish: Reason | None = None, key: Key = None) -> Response:
        """Cancel those of its tasks that have not ended."""
        return await on_job(request, CancelJob, wish, key, job=name)

    @routes.post("/jobs/{name}/retry", response_model=JobActed, tags=["jobs"])
    async def retry_job(request: Request, name: Called, wish: RetriedJob | None = None, key: Key = None) -> Response:
        """Put those of its tasks that failed back into their queues."""
        return await on_job(request, RetryJob, wish, key, job=name, cause=wish.cause if wish else "")

    @routes.post("/jobs/{name}/reroute", response_model=JobActed, tags=["jobs"])
    async def reroute_job(request: Request, name: Called, wish: ReroutedJob, key: Key = None) -> Response:
        """Move those of its tasks that have not ended."""
        return await on_job(
            request, RerouteJob, wish, key, job=name, queue=wish.queue, node=wish.node, labels=wish.labels
        )

    @routes.post("/jobs/{name}/prioritise", response_model=JobActed, tags=["jobs"])
    async def prioritise_job(request: Request, name: Called, wish: PrioritisedJob, key: Key = None) -> Response:
        """Give those of its tasks that have not ended another priority."""
        return await on_job(request, PrioritiseJob, wish, key, job=name, priority=wish.priority)

    async def on_job(
        request: Request, kind: type[Act[JobActAnswer]], wish: Reason | None, key: str | None, **values: Any
    ) -> Response:
        """In as many commands as it takes: each goes on where the one before has stopped."""
        act = _made(request, kind, wish, key, **values)
        done = seen = 0
        refused: dict[tuple[str, str], dict[str, Any]] = {}
        following = act
        while True:
            answer = await line.ask(following)
            done, seen = done + answer.done, seen + answer.seen
            for one in answer.refused:
                known = refused.setdefault(
                    (one.example.code, one.example.message), one.model_dump(mode="json") | {"count": 0}
                )
                known["count"] += one.count
            if not answer.after:
                return told(JobActed(act=act.id, done=done, refused=list(refused.values()), seen=seen))
            piece = f"{act.id[:40]}:{answer.after}"
            following = act.model_copy(update={"id": piece, "after": answer.after})

    # ------------------------------------------------------------ nodes

    @routes.get("/nodes", response_model=NodeList, tags=["nodes"])
    async def list_nodes() -> Response:
        """All nodes that the cluster knows."""
        return told(NodeList(nodes=list((await line.ask(Nodes())).nodes)))

    @routes.get("/nodes/{name}", response_model=NodeRecord, tags=["nodes"])
    async def get_node(name: Called) -> Response:
        """A node as the cluster sees it."""
        found = next((node for node in (await line.ask(Nodes())).nodes if node.id == name), None)
        if found is None:
            raise NodeNotFound(name)
        return told(found)

    @routes.post("/nodes/{name}/drain", response_model=Did, tags=["nodes"])
    async def drain(request: Request, name: Called, wish: Deadline | None = None, key: Key = None) -> Response:
        """It finishes what it has and takes nothing new."""
        return await did(request, Drain, wish, key, node=name, deadline_s=wish.deadline_s if wish else None)

    @routes.post("/nodes/{name}/stop", response_model=Did, tags=["nodes"])
    async def stop(request: Request, name: Called, wish: Deadline | None = None, key: Key = None) -> Response:
        """Its agent drains and ends."""
        return await did(request, StopNode, wish, key, node=name, deadline_s=wish.deadline_s if wish else None)

    @routes.post("/nodes/{name}/activate", response_model=Did, tags=["nodes"])
    async def activate(request: Request, name: Called, wish: OnDevice | None = None, key: Key = None) -> Response:
        """It, or a device of it, takes work again."""
        return await did(request, Activate, wish, key, node=name, device=wish.device if wish else "")

    @routes.post("/nodes/{name}/quarantine", response_model=Did, tags=["nodes"])
    async def quarantine(request: Request, name: Called, wish: OnDevice | None = None, key: Key = None) -> Response:
        """It, or a device of it, takes nothing new, and is not probed."""
        return await did(request, Quarantine, wish, key, node=name, device=wish.device if wish else "")

    @routes.post("/nodes/{name}/release", response_model=Did, tags=["nodes"])
    async def release(request: Request, name: Called, wish: Reason | None = None, key: Key = None) -> Response:
        """It frees what its loaded models hold."""
        return await did(request, Release, wish, key, node=name)

    @routes.post("/nodes/{name}/set", response_model=Did, tags=["nodes"])
    async def set_device(request: Request, name: Called, wish: DeviceSet, key: Key = None) -> Response:
        """How many slots a device has, and which queues it serves."""
        queues = None if wish.queues is None else tuple(wish.queues)
        return await did(request, SetDevice, wish, key, node=name, device=wish.device, slots=wish.slots, queues=queues)

    @routes.post("/nodes/{name}/label", response_model=Did, tags=["nodes"])
    async def label(request: Request, name: Called, wish: Labelled, key: Key = None) -> Response:
        """Labels over those that its agent tells."""
        return await did(
            request, LabelNode, wish, key,
            node=name, labels=wish.labels, without=tuple(wish.without), forget=tuple(wish.forget),
        )  # fmt: skip

    # ------------------------------------------------------------ queues

    @routes.get("/queues", response_model=QueueList, tags=["queues"])
    async def list_queues() -> Response:
        """All queues with their counts."""
        return told(QueueList(queues=list((await line.ask(Queues())).queues)))

    @routes.get("/queues/{name}", response_model=QueueRecord, tags=["queues"])
    async def get_queue(name: Called) -> Response:
        """A queue with its counts."""
        queues = (await line.ask(Queues())).queues
        found = next((queue for queue in queues if queue.name == name), None)
        if found is None:
            raise UnknownQueue(name, [queue.name for queue in queues])
        return told(found)

    @routes.post("/queues/{name}/pause", response_model=Did, tags=["queues"])
    async def pause(request: Request, name: Called, wish: Reason | None = None, key: Key = None) -> Response:
        """Nothing of it starts until it is resumed."""
        return await did(request, Pause, wish, key, queue=name)

    @routes.post("/queues/{name}/resume", response_model=Did, tags=["queues"])
    async def resume(request: Request, name: Called, wish: Reason | None = None, key: Key = None) -> Response:
        """It goes on."""
        return await did(request, Resume, wish, key, queue=name)

    # ------------------------------------------------------------ acts, causes, what else there is to know

    @routes.get("/acts", response_model=ActPage, tags=["acts"])
    async def list_acts(
        request: Request,
        actor: Name = "",
        limit: Annotated[int, Query(ge=1, le=_MOST_AT_ONCE)] = 100,
        cursor: Annotated[str, Query(pattern=r"^([0-9]{1,19}-[0-9]{1,19})?$")] = "",
    ) -> Response:
        """Who did what to the cluster and why, newest first."""
        found = (await line.ask(Acts(before=cursor, actor=actor, limit=limit))).acts
        following = found[-1].id if len(found) == limit else ""
        return told(ActPage(acts=list(found), next=following), headers=next_link(request, "cursor", following))

    @routes.post("/acts/{act}/undo", response_model=BulkAnswer, tags=["acts"])
    async def undo(
        request: Request,
        act: Annotated[str, Path(min_length=1, max_length=64)],
        wish: Reason | None = None,
        key: Key = None,
    ) -> Response:
        """Take back what an act of the last 15 s has done, where nothing has happened since."""
        return told(await line.ask(_made(request, Undo, wish, key, act=act)))

    @routes.get("/causes", response_model=CauseList, tags=["causes"])
    async def list_causes(cause: Name = "", job: Name = "") -> Response:
        """The failed tasks, by what they died of, the most frequent first."""
        return told(await line.ask(Dead(cause=cause, job=job)))

    @routes.post("/causes/acknowledge", response_model=Did, tags=["causes"])
    async def acknowledge(request: Request, wish: Acknowledged, key: Key = None) -> Response:
        """Somebody knows of them."""
        act = Acknowledge(
            id=act_id(request, key, wish.model_dump_json()),
            actor=caller_in(request).name,
            reason=wish.note,
            cause=wish.cause,
            text=wish.text,
            withdraw=wish.withdraw,
        )
        await line.ask(act)
        return told(Did(act=act.id))

    @routes.get("/autoscale", response_model=AutoscaleAnswer, tags=["autoscale"])
    async def autoscale(target_wait_s: Annotated[float, Query(ge=0.001, le=30 * 24 * 3600)] = 60.0) -> Response:
        """How many slots each queue wants, and which nodes are idle (docs/autoscale.md)."""
        return told(await line.ask(Autoscale(target_wait_s=target_wait_s)))

    @routes.get("/spend", response_model=SpendAnswer, tags=["autoscale"])
    async def spend(
        days: Annotated[int, Query(ge=0, le=400)] = 0, job: Annotated[str, Query(max_length=128)] = ""
    ) -> Response:
        """What serverless functions have cost, and may (docs/serverless.md)."""
        return told(await line.ask(AskSpend(days=days, job=job)))

    @routes.get("/functions", response_model=FunctionsAnswer, tags=["autoscale"])
    async def functions() -> Response:
        """The functions that nodes call, how many instances of each are warm, and what each has cost this hour."""
        return told(await line.ask(AskFunctions()))

    @routes.post("/functions/{name}/warm", response_model=WarmFunctionAnswer, tags=["autoscale"])
    async def warm_function(request: Request, name: Called, wish: Warmth | None = None, key: Key = None) -> Response:
        """Wake instances of it, as far as the budget allows (docs/serverless.md)."""
        said = wish or Warmth()
        values = {"count": said.count, "node": said.node, "model": said.model}
        return told(await line.ask(_made(request, WarmFunction, wish, key, function=name, **values)))

    @routes.post("/autoscale/drain_idle", response_model=DrainIdleAnswer, tags=["autoscale"])
    async def drain_idle(request: Request, wish: DrainedIdle, key: Key = None) -> Response:
        """Drain so many of the nodes that nothing would miss."""
        return told(await line.ask(_made(request, DrainIdle, wish, key, count=wish.count, queue=wish.queue)))

    @routes.get("/costs", response_model=CostsAnswer, tags=["costs"])
    async def costs(model: Name = "") -> Response:
        """What attempts were predicted to take, and took (docs/costs.md)."""
        return told(await line.ask(Costs(model=model)))

    @routes.get("/report", response_model=ReportAnswer, tags=["report"])
    async def report(
        since: Annotated[str, Query(max_length=20, description="30d, 4w, or a day such as 2026-11-01 (UTC)")] = "30d",
        by: By = "user",
        form: Annotated[Literal["json", "csv", "html"], Query(alias="format")] = "json",
    ) -> Response:
        """What was used, also of forgotten tasks (docs/report.md): as JSON, as CSV, or as a page with plots."""
        answer = await line.ask(Report(since=since, by=by, whole=form == "html"))
        if form == "csv":
            return Response(as_csv(by, answer.rows), media_type="text/csv; charset=utf-8")
        if form == "html":
            cluster, made = line.ground.config.discovery.cluster or "lcq", time.strftime("%Y-%m-%d %H:%M %Z")
            page = report_page(answer, cluster=cluster, made=made, version=__version__)
            return Response(page, media_type="text/html; charset=utf-8", headers=_PLAIN_PAGE)
        return told(answer)

    @routes.get("/info", response_model=InfoAnswer, tags=["info"])
    async def info() -> Response:
        """Which scheduler this is: versions, its Redis, its queues, the newest event's id."""
        return told(await line.ask(Info()))

    return routes


def _made(request: Request, kind: type[Act[Any]], wish: Reason | None, key: str | None, **values: Any) -> Any:
    said = wish or Reason()
    return kind(
        id=act_id(request, key, said.model_dump_json()), actor=caller_in(request).name, reason=said.reason, **values
    )
