"""The self-test of a runner: each model shows on a tiny picture that it works on this device."""

from __future__ import annotations

import logging
import time

import numpy as np

from lcq.models import TaskType
from worker.engines.base import EngineSettings, Picture, Work
from worker.engines.check import BadOutput, check_output
from worker.engines.registry import explained
from worker.engines.shelf import Shelf

_log = logging.getLogger(__name__)
_SIDE = 64
_TESTED = (TaskType.INPAINT, TaskType.UPSCALE, TaskType.SEGMENT)  # a plug-in's own task may need a config of its own


def self_test(shelf: Shelf, settings: EngineSettings) -> dict[str, str]:
    """Load each model and let it work on a tiny picture; the ones that fail, by name, with the reason.

    Engines that say ``self_test = False`` are passed over. What was loaded stays loaded, within the budget.
    """
    failed: dict[str, str] = {}
    for model, offer in shelf.offers.items():
        task_type = next((known for known in _TESTED if known in offer.task_types), None)
        engine = shelf.engine_of(model)
        if engine is None or task_type is None or not getattr(engine, "self_test", True):
            continue
        picture = golden_picture(with_hole=task_type is TaskType.INPAINT)
        began = time.monotonic()
        try:
            work = Work(task_type, model, picture, {}, lambda fraction, stage: None)
            check_output(task_type, picture, shelf.load(model, {}).run(work))
        except BadOutput as bad:
            failed[model] = f"{model} failed its self-test on {settings.device.id}: {bad}"
        except Exception as error:  # noqa: BLE001 - whatever it is, it would be every task's end
            _log.exception("%s failed its self-test", model)
            failed[model] = f"{model} failed its self-test on {settings.device.id}: {explained(error)}"
        else:
            _log.info("%s passed its self-test in %.2f s", model, time.monotonic() - began)
    return failed


def golden_picture(*, with_hole: bool) -> Picture:
    """A colour slope with a weave on it, so that no patch of one colour can pass for a piece of it."""
    down, across = np.mgrid[0:_SIDE, 0:_SIDE]
    weave = 24 * ((down // 3 + across // 3) % 2)
    pixels = np.dstack((40 + 2 * down + weave, 40 + 2 * across + weave, 200 - down - across + weave)).astype(np.uint8)
    mask = np.zeros((_SIDE, _SIDE), bool)
    if with_hole:
        mask[20:40, 24:44] = True
    pixels.flags.writeable = False
    return Picture(pixels, mask)
