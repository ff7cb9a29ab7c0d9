"""What a scheduler tells of the cluster and of itself. It asks Redis of queues and nodes, never of tasks."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lcq import __version__
from lcq.alert_config import SEVERITIES
from lcq.component import Ground
from lcq.errors import LcqError
from lcq.metrics.exposition import Sheet, put_reading
from lcq.models import NodeRecord, NodeStatus, TaskStatus
from lcq.routing import LIVE
from lcq.state.reader import StateReader
from lcq.storage.room import Room, room_of

_ANSWER_S = 3.0  # Redis counts as away where it takes longer
_AGE_S = 1.0  # however often it is scraped, Redis is asked no oftener
_BACKLOG_AGE_S = 5.0
_DISK_S = 1.0

_TOTALS = {
    "submitted": "lcq_tasks_submitted_total",
    "completed": "lcq_tasks_completed_total",
    "failed": "lcq_tasks_failed_total",
    "cancelled": "lcq_tasks_cancelled_total",
    "displaced": "lcq_tasks_displaced_total",
    "claimed": "lcq_attempts_claimed_total",
    "retried": "lcq_attempts_retried_total",
    "eased": "lcq_attempts_eased_total",
    "expired": "lcq_leases_lost_total",
    "fenced": "lcq_results_fenced_total",
    "late": "lcq_results_late_total",
    "isolated": "lcq_records_damaged_total",
    "clock_set": "lcq_clock_set_total",
}
"""What the moves count, by the names under which they do (``tally`` in lua/_prelude.lua)."""


class ClusterMetrics:
    """Reads what is of the whole cluster, of several who ask within a second once."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._reading = asyncio.Lock()
        self._read_at = -_AGE_S
        self._sheet: Sheet | None = None
        self._looking: asyncio.Future[dict[str, Room]] | None = None

    async def put_on(self, sheet: Sheet) -> None:
        """Put all on ``sheet`` that this scheduler can tell. Without Redis that is what it knows of itself."""
        async with self._reading:
            if time.monotonic() - self._read_at >= _AGE_S:
                self._sheet = await self._read()
                self._read_at = time.monotonic()
            if self._sheet is not None:
                sheet.take(self._sheet)
        sheet.put("lcq_redis_up", int(self._sheet is not None))
        self._put_scheduler(sheet)
        for place, room in (await self._rooms()).items():
            sheet.put("lcq_disk_bytes", room.total, place)
            sheet.put("lcq_disk_free_bytes", room.free, place)

    async def _rooms(self) -> dict[str, Room]:
        """The disks of this scheduler; none where one hangs, which then holds up one thread and no more."""
        config = self._ground.config
        if self._looking is None or self._looking.done():
            places = {"data": config.data_path, "storage": config.storage_path}
            self._looking = asyncio.ensure_future(asyncio.to_thread(_rooms_of, places))
        done, _ = await asyncio.wait({self._looking}, timeout=_DISK_S)
        return self._looking.result() if done else {}

    async def _read(self) -> Sheet | None:
        sheet = Sheet()
        try:
            async with asyncio.timeout(_ANSWER_S):
                await put_cluster(sheet, self._ground.state.reader)
        except (TimeoutError, LcqError):
            return None
        return sheet

    def _put_scheduler(self, sheet: Sheet) -> None:
        state, site = self._ground.state, self._ground.site
        sheet.put("lcq_scheduler_info", 1, __version__, state.server_version)
        sheet.put("lcq_redis_refuses_tasks", int(state.watch.risk is not None))
        settings = site.settings
        sheet.put("lcq_settings_ok", int(settings is None or not settings.error))
        sheet.put("lcq_settings_refused_total", settings.refused if settings is not None else 0)
        sheet.put("lcq_settings_need_restart", len(settings.waiting) if settings is not None else 0)
        sheet.put("lcq_handshakes_failed_total", site.handshakes_failed())
        for histogram in state.measures.histograms:
            sheet.put_histogram(histogram)
        for counts in state.measures.counts:
            sheet.put_counts(counts)


async def put_cluster(sheet: Sheet, reader: StateReader) -> None:
    """What Redis tells, the same to every scheduler.

    Raises:
        StateUnavailable: it does not answer.
    """
    nodes = await reader.nodes()
    queues, counts, totals, schedulers, alerts, spend = await asyncio.gather(
        reader.queues(nodes), reader.counts(), reader.totals(), reader.schedulers(), reader.alerts(), reader.spend()
    )
    now_ms = alerts.now_ms
    fleet = await reader.recent_fleet(within_s=_BACKLOG_AGE_S)
    for span in ("hour", "day", "month"):
        book, limit = getattr(spend, span), getattr(spend.budget, span)
        sheet.put("lcq_functions_spent", book.spent, span)
        sheet.put("lcq_functions_reserved", book.reserved, span)
        if limit is not None:
            sheet.put("lcq_functions_budget", limit, span)
    for status in TaskStatus:
        sheet.put("lcq_tasks", counts[status], status)
    for counted, name in _TOTALS.items():
        sheet.put(name, totals.get(counted, 0))
    for queue in queues:
        for status in TaskStatus:
            sheet.put("lcq_queue_tasks", queue.counts.get(status, 0), queue.name, status)
        oldest_ms = queue.oldest_queued_ms
        waits_s = 0.0 if oldest_ms is None else max(0.0, (now_ms - oldest_ms) / 1000)
        sheet.put("lcq_queue_oldest_seconds", waits_s, queue.name)
        sheet.put("lcq_queue_backlog_seconds", sum(fleet.backlog.get(queue.name, {}).values()), queue.name)
        sheet.put("lcq_queue_paused", int(queue.paused), queue.name)
        sheet.put("lcq_queue_nodes", len(queue.nodes), queue.name)
    sheet.put("lcq_schedulers", len(schedulers))
    loud = Counter((one.severity, "yes" if alerts.silence_of(one) else "no") for one in alerts.alerts if one.is_firing)
    for severity in SEVERITIES:
        for silenced in ("yes", "no"):
            sheet.put("lcq_alerts", loud[severity, silenced], severity, silenced)
    _put_nodes(sheet, nodes, now_ms)


def _rooms_of(places: dict[str, Path]) -> dict[str, Room]:
    return {place: room for place, folder in places.items() if (room := room_of(folder)) is not None}


def _put_nodes(sheet: Sheet, nodes: Sequence[NodeRecord], now_ms: int) -> None:
    for status in NodeStatus:
        sheet.put("lcq_nodes", sum(node.status is status for node in nodes), status)
    live = [node for node in nodes if node.status is not NodeStatus.OFFLINE]
    sheet.put("lcq_slots", sum(node.running for node in live), "busy")
    sheet.put("lcq_slots", sum(max(0, node.slots - node.running) for node in live), "free")
    for node in nodes:
        is_up = node.status is not NodeStatus.OFFLINE
        sheet.put("lcq_node_up", int(is_up), node.id)
        sheet.put("lcq_node_takes_work", int(node.status in LIVE), node.id)
        sheet.put("lcq_node_seen_seconds", max(0.0, (now_ms - node.seen_ms) / 1000), node.id)
        sheet.put("lcq_node_completed_total", node.completed, node.id)
        sheet.put("lcq_node_failed_total", node.failed, node.id)
        sheet.put("lcq_node_slots", node.running, node.id, "busy")
        sheet.put("lcq_node_slots", max(0, node.slots - node.running) if is_up else 0, node.id, "free")
        for device in node.capability.devices if is_up else ():
            reading = node.readings.get(device.id)
            works = node.status in LIVE and device.id not in node.quarantined and not (reading and reading.fault)
            sheet.put("lcq_device_works", int(works), node.id, device.id)
            if reading is not None:
                put_reading(sheet, "lcq_device", reading, node.id, device.id)
