"""The desk answers every frame once: copies get the first answer, nonsense gets a reason, bugs stay inside."""

from __future__ import annotations

import asyncio

import pytest

from lcq.desk import Desk, _audit
from lcq.errors import TaskNotFound
from lcq.wire import (
    Done,
    Find,
    FindAnswer,
    Info,
    Pause,
    SetDevice,
    Submit,
    pack_request,
    unpack_reply,
)
from tests.nodes import a_task


class Memory:
    """Stands for the state's answers of acts; the real ones are tested with Redis in test_desk_acts."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.acts: list[dict[str, str]] = []

    async def recall_answer(self, command_id: str) -> bytes | None:
        return self.answers.get(command_id)

    async def note_act(self, command_id: str, answer: bytes, act: dict[str, str]) -> None:
        self.answers[command_id] = answer
        if act:
            self.acts.append(act)


def test_the_audit_leaves_out_what_nobody_has_said() -> None:
    assert _audit(Pause(id="1", queue="gpu-low", actor="ann"))["on"] == "queue=gpu-low"
    task = a_task()
    assert _audit(Submit(id="2", tasks=(task,), actor="ann"))["on"] == f"tasks={task.id} count=1"
    told = _audit(SetDevice(id="3", node="gpu-1", device="cpu", slots=0, actor="ann"))["on"]
    assert "slots=0" in told  # which is not the same


@pytest.fixture
def desk() -> Desk:
    return Desk(Memory())  # type: ignore[arg-type]


async def test_a_question_is_answered_by_who_serves_it(desk: Desk):
    async def find(ask: Find, sender: bytes) -> FindAnswer:
        return FindAnswer(id=ask.prefix + "0000")

    desk.serve(Find, find)
    reply = unpack_reply(await desk.answer(pack_request(Find(prefix="1m84")), b"me"))
    assert reply.answer(FindAnswer).id == "1m840000"


async def test_our_refusals_travel_as_what_they_are(desk: Desk):
    async def find(ask: Find, sender: bytes) -> FindAnswer:
        raise TaskNotFound(ask.prefix)

    desk.serve(Find, find)
    reply = unpack_reply(await desk.answer(pack_request(Find(prefix="zz")), b"me"))
    with pytest.raises(TaskNotFound, match="no task 'zz'"):
        reply.answer(FindAnswer)


async def test_a_command_sent_twice_is_done_once_also_while_it_is_under_way(desk: Desk):
    done: list[str] = []
    go = asyncio.Event()

    async def pause(act: Pause, sender: bytes) -> Done:
        await go.wait()
        done.append(act.queue)
        return Done()

    desk.serve(Pause, pause)
    frame = pack_request(Pause(queue="cpu-light", actor="maria"))
    first, copy = asyncio.ensure_future(desk.answer(frame, b"a")), asyncio.ensure_future(desk.answer(frame, b"a"))
    await asyncio.sleep(0)
    go.set()
    late = await desk.answer(frame, b"a")
    assert await first == await copy == late
    assert done == ["cpu-light"]


async def test_an_act_is_remembered_for_another_scheduler_and_audited_with_actor_and_reason():
    memory = Memory()
    done: list[str] = []

    async def pause(act: Pause, sender: bytes) -> Done:
        done.append(act.queue)
        return Done()

    frame = pack_request(Pause(queue="cpu-light", actor="maria", reason="upgrade"))
    for _ in range(2):  # two schedulers over one memory
        desk = Desk(memory)  # type: ignore[arg-type]
        desk.serve(Pause, pause)
        unpack_reply(await desk.answer(frame, b"a")).answer(Done)
    assert done == ["cpu-light"]
    (act,) = memory.acts
    assert (act["act"], act["actor"], act["reason"], act["on"]) == ("pause", "maria", "upgrade", "queue=cpu-light")


async def test_a_command_nobody_serves_and_a_frame_nobody_understands_get_a_reason(desk: Desk):
    reply = unpack_reply(await desk.answer(pack_request(Info()), b"me"))
    assert reply.error is not None
    assert reply.error["code"] == "unknown_command"
    garbage = unpack_reply(await desk.answer(b"\xc1 not msgpack", b"me"))
    assert garbage.error is not None
    assert garbage.error["code"] == "protocol_error"


async def test_a_bug_in_one_command_is_its_answer_and_the_desk_works_on(desk: Desk, caplog: pytest.LogCaptureFixture):
    async def find(ask: Find, sender: bytes) -> FindAnswer:
        raise ZeroDivisionError("a bug")

    desk.serve(Find, find)
    reply = unpack_reply(await desk.answer(pack_request(Find(prefix="a")), b"me"))
    assert reply.error is not None
    assert "find failed inside the scheduler" in reply.error["message"]
    assert "Traceback" in caplog.text
