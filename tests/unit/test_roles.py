"""What keys of each role may say."""

from __future__ import annotations

import pytest

from lcq.errors import KeyForbids
from lcq.key_record import OF_PEOPLE, KeyRecord, KeyRole
from lcq.models import Privacy
from lcq.roles import refuse_for, roles_for
from lcq.wire import REQUESTS, Act, Beat, Cancel, GetTasks, Info, Join, Nodes, Pause, SetPrivacy, Submit
from tests.nodes import a_task

AGENT, VIEWER, SUBMITTER, OPERATOR, INVITED = KeyRole
KINDS = sorted(REQUESTS.values(), key=lambda kind: kind.CMD)


def holder(role: KeyRole, **more: str) -> KeyRecord:
    return KeyRecord(key="ab" * 32, name="ann", role=role, **more)


def test_every_command_is_for_somebody_and_none_is_for_a_token_but_to_join() -> None:
    assert all(roles_for(kind) for kind in KINDS)
    assert [kind for kind in KINDS if INVITED in roles_for(kind)] == [Join]
    assert roles_for(Join) == {INVITED}


def test_of_people_each_may_what_those_with_less_may() -> None:
    for kind in KINDS:
        may = [role in roles_for(kind) for role in OF_PEOPLE]
        assert may == sorted(may), kind.CMD


def test_a_viewer_changes_nothing_but_its_own_key() -> None:
    assert [kind.CMD for kind in KINDS if VIEWER in roles_for(kind) and issubclass(kind, Act)] == ["replace_key"]


def test_an_agent_speaks_for_its_node_and_steers_nothing() -> None:
    acts = [kind.CMD for kind in KINDS if AGENT in roles_for(kind) and issubclass(kind, Act)]
    assert acts == ["replace_key"]
    agents_alone = {kind.CMD for kind in KINDS if roles_for(kind) == {AGENT}}
    assert agents_alone == {
        "hello", "step", "beat", "retake", "open_call", "probed", "bye", "pictured", "logged", "task_logged", "saw",
        "warm", "warmed",
    }  # fmt: skip
    refuse_for(holder(AGENT, node="gpu-1"), Beat(node_id="gpu-1", boot_id="b"))
    refuse_for(holder(AGENT, node="gpu-1"), GetTasks(ids=("x",)))
    with pytest.raises(KeyForbids, match="speaks for node gpu-1, not for gpu-2"):
        refuse_for(holder(AGENT, node="gpu-1"), Beat(node_id="gpu-2", boot_id="b"))


@pytest.mark.parametrize(
    ("role", "request_"),
    [
        (AGENT, Submit(tasks=(a_task(),))), (AGENT, Pause(queue="cpu-light")), (AGENT, Nodes()),
        (VIEWER, Cancel(ids=("x",))), (VIEWER, Submit(tasks=(a_task(),))), (VIEWER, Beat(node_id="n", boot_id="b")),
        (SUBMITTER, Pause(queue="cpu-light")), (OPERATOR, Beat(node_id="n", boot_id="b")), (INVITED, Info()),
    ],
)  # fmt: skip
def test_what_a_role_may_not_say_is_refused_with_what_it_takes(role: KeyRole, request_: object) -> None:
    with pytest.raises(KeyForbids, match=rf"ann, whose key is an? {role}'s, may not") as refused:
        refuse_for(holder(role), request_)  # type: ignore[arg-type]
    assert "lcq keys invite --role" in refused.value.hint


def test_a_submitter_has_its_own_tasks_cancelled_and_nobody_elses() -> None:
    asked = Cancel(ids=("x", "y"))
    refuse_for(holder(SUBMITTER), asked, {"x": "ann", "y": "ann"})
    refuse_for(holder(OPERATOR), asked, {"x": "ann", "y": "ben"})
    with pytest.raises(KeyForbids, match="cancel task y of others"):
        refuse_for(holder(SUBMITTER), asked, {"x": "ann", "y": "ben"})
    with pytest.raises(KeyForbids, match="set privacy task y of others"):
        refuse_for(holder(SUBMITTER), SetPrivacy(ids=("y",), privacy=Privacy.EXPORTABLE), {"y": "ben"})
