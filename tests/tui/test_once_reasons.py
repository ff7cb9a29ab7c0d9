"""``lcq console --once`` tells of tasks that wait why they do, as the scheduler sees it."""

from __future__ import annotations

from typing import cast

from lcq.reasons import WhyCode, because
from lcq.wire import ListTasks, ListTasksAnswer
from tests.tui.fakes import FakeCluster, a_task
from tui.cluster import Cluster
from tui.columns import last_word
from tui.once import look_once
from tui.saved import SavedView


class Listed(FakeCluster):
    async def list_tasks(self, wish: ListTasks) -> ListTasksAnswer:
        tasks = tuple(self.records.values())
        return ListTasksAnswer(tasks=tasks, cursor="", looked_at=len(tasks), total=len(tasks))


async def test_what_waits_says_why_and_where_no_scheduler_answers_what_its_record_says():
    task = a_task(why="gpu-high: the least that has it")
    cluster = Listed([task])
    cluster.reasons[task.id] = because(WhyCode.NO_NODE, "no node is online", known=0)
    for reasons, word in ((True, "no node is online"), (False, "gpu-high: the least that has it")):
        shown = await look_once(cast(Cluster, cluster), SavedView("", "tasks"), limit=5, reasons=reasons)
        (row,) = shown.view.rows()
        assert last_word(row, shown.view.now_ms)[0] == word
