"""/v1/alerts: what needs people, what of it nobody wants to hear of for a while, and whether receivers can be told."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import Field

from lcq.http.line import Line, act_id, caller_in
from lcq.http.shapes import Body, Did, Key
from lcq.http.v1_tasks import REFUSED, told
from lcq.wire import AlertsAnswer, AskAlerts, SilenceAlert, TestAlerts, TestAlertsAnswer, UnsilenceAlert

RuleName = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Subject = Annotated[
    str, Field(max_length=200, pattern=r"^[^\x00]*$", description='a queue, node or scheduler; "": whatever it is of')
]


class OnAlert(Body):
    subject: Subject = ""
    reason: str = Field(default="", max_length=500)


class Silenced(OnAlert):
    seconds: float = Field(ge=1, le=365 * 24 * 3600)


class Tested(Body):
    receivers: list[Annotated[str, Field(max_length=64)]] = Field(
        default_factory=list, max_length=100, description="default: all"
    )
    reason: str = Field(default="", max_length=500)


def router(line: Line) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1", responses=REFUSED, tags=["alerts"])

    @routes.get("/alerts", response_model=AlertsAnswer)
    async def alerts() -> Response:
        """Alerts that are about to be or are, silences, rules, and who is told (docs/alerts.md)."""
        return told(await line.ask(AskAlerts()))

    @routes.post("/alerts/{rule}/silence", response_model=Did)
    async def silence(request: Request, rule: RuleName, wish: Silenced, key: Key = None) -> Response:
        """Nobody is told of this rule for so long, or of what it says of one subject."""
        act = SilenceAlert(
            id=act_id(request, key, wish.model_dump_json()), actor=caller_in(request).name, rule=rule,
            **wish.model_dump(),
        )  # fmt: skip
        await line.ask(act)
        return told(Did(act=act.id))

    @routes.post("/alerts/{rule}/unsilence", response_model=Did)
    async def unsilence(request: Request, rule: RuleName, wish: OnAlert | None = None, key: Key = None) -> Response:
        """What was silenced so is heard again."""
        said = wish or OnAlert()
        act = UnsilenceAlert(
            id=act_id(request, key, said.model_dump_json()), actor=caller_in(request).name, rule=rule,
            **said.model_dump(),
        )  # fmt: skip
        await line.ask(act)
        return told(Did(act=act.id))

    @routes.post("/alerts:test", response_model=TestAlertsAnswer)
    async def test_alerts(request: Request, wish: Tested | None = None, key: Key = None) -> Response:
        """A notice of an alert that is none goes to receivers, at once; what came of it with each."""
        said = wish or Tested()
        act = TestAlerts(
            id=act_id(request, key, said.model_dump_json()), actor=caller_in(request).name, reason=said.reason,
            receivers=tuple(said.receivers),
        )  # fmt: skip
        return told(await line.ask(act))

    return routes
