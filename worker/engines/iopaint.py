"""The IOPaint engine: models that LCQ does not run itself are run by an IOPaint server beside it.

With ``iopaint.command`` or ``iopaint.venv`` each runner starts a server of its own for its device once a task
needs it, and ends it with the model, or with itself. With ``iopaint.url`` a server of somebody else's is used.

IOPaint has neither a queue nor a lock: two pictures at a time get mixed up. A server of ours has one user, its
runner. To a server at a URL the runners of one user on one host go one at a time; it must have no other users
(other hosts' agents, people with browsers), and a runner that is killed leaves it busy with what it was doing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from lcq.costs import KNOWN_MODELS, ModelFacts
from lcq.runner_config import IopaintConfig
from worker.engines.base import (
    DeviceKind,
    Ease,
    Engine,
    EngineError,
    EngineSettings,
    ErrorClass,
    Estimate,
    ModelOffer,
    Work,
)

if TYPE_CHECKING:
    from worker.engines.iopaint_neighbours import Neighbour

_MIB = 2**20
_ANY_KIND = ModelFacts((DeviceKind.GPU, DeviceKind.CPU))


class IopaintEngine(Engine):
    """The models that ``iopaint.models`` names. The configuration knows IOPaint's own fields, by its names.

    A server is started, or its model switched, by ``run``, which can tell of the wait and be cancelled;
    ``load`` only says what is held already. Where nothing is to be offered, nothing that talks to a server is loaded.
    """

    name = "iopaint"
    self_test = False  # it would start a server with each model in turn

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        config = settings.iopaint
        self._facts = {model: KNOWN_MODELS.get(model, _ANY_KIND) for model in config.models}
        self._why_not = _why_not(config)

    @cached_property
    def _neighbour(self) -> Neighbour:
        from worker.engines.iopaint_neighbours import neighbour

        return neighbour(self.settings)

    def capabilities(self) -> Mapping[str, ModelOffer]:
        if self._why_not:
            return {}
        return {model: self._offer(model, self._facts[model]) for model in self.settings.iopaint.models}

    def _offer(self, model: str, facts: ModelFacts) -> ModelOffer:
        from worker.engines.iopaint_request import eases_of

        is_ours = self.settings.iopaint.url is None
        return ModelOffer(
            kinds=facts.kinds,
            vram_mib=facts.vram_mib if is_ours else 0,  # a server elsewhere takes nothing of this device
            seconds=dict(facts.seconds),
            eases=eases_of(self.settings.iopaint.models[model]),
        )

    def left_out(self) -> Mapping[str, str]:
        return dict.fromkeys(self.settings.iopaint.models, self._why_not) if self._why_not else {}

    def estimate(self, work: Work) -> Estimate:
        """From what the model is known to take. On the CPU its memory is not known."""
        kind, facts = self.settings.device.kind, self._facts[work.model]
        is_on_gpu = kind is DeviceKind.GPU and self.settings.iopaint.url is None
        return Estimate(memory_mib=facts.vram_mib if is_on_gpu else 0, seconds=facts.seconds.get(kind, 0.0))

    def load(self, model: str, config: Mapping[str, Any]) -> int:
        """What our server holds, in bytes, if it has ``model`` already. Starts none.

        Raises:
            EngineError: it is none of this engine's models.
        """
        return self._neighbour.held_bytes(self._name_there(model))

    def run(self, work: Work) -> NDArray[Any]:
        """The picture with its holes as IOPaint fills them; nothing else of its answer is taken.

        Pictures of 16 bits are worked on with 8, which is noted.

        Raises:
            EngineError: config_invalid, mask_full (models that only erase have nothing to fill from) or
                iopaint_refused: the task's fault. out_of_memory. iopaint_unreachable, iopaint_not_started,
                iopaint_slow, iopaint_busy, model_not_here: to be tried again. engine_error, iopaint_died:
                it broke. output_shape, output_unreadable: its answer is of no use.
            Cancelled: by way of ``progress``; a server of ours that was busy is ended.
        """
        from worker.engines.iopaint_request import ERASERS, eased_fields, eases_of, fields_of, filled, request_body

        model, picture = self._name_there(work.model), work.picture
        fields = fields_of(work.config)
        if not picture.mask.any():
            return picture.pixels.copy()
        if picture.mask.all() and model in ERASERS:
            raise EngineError(
                "mask_full", "the mask covers the whole picture: nothing is left to fill it from (paint less)"
            )
        if Ease.SMALLER_TILE in work.eased and eases_of(model):
            fields, note = eased_fields(model, fields)
            work.notes.append(note)
        answer = self._neighbour.inpaint(model, request_body(picture, fields), work.progress)
        pixels = filled(picture, answer.image)
        if fields.get("sd_seed") == -1 and answer.seed:
            work.notes.append(f"made with the random sd_seed {answer.seed:.20}")
        if pixels.dtype.itemsize > 1:
            work.notes.append("IOPaint works with 8 bits: the filled pixels have no more")
        return pixels

    def unload(self, model: str) -> None:
        """End our server, if it is this model that it has."""
        self._neighbour.unload(self._name_there(model))

    def held_mib(self) -> int:
        """What our server takes of the host's memory; 0 on a GPU, where its share is not known."""
        return -(-self._neighbour.held_bytes() // _MIB) if self.capabilities() else 0

    def _name_there(self, model: str) -> str:
        try:
            return self.settings.iopaint.models[model]
        except KeyError:
            message = f"{model!r} is not named in iopaint.models"
            raise EngineError("model_not_here", message, error_class=ErrorClass.TRANSIENT) from None


def _why_not(config: IopaintConfig) -> str:
    """Why no model can be offered; "" where they can, as far as is known without asking a server."""
    if config.command is not None or config.venv is not None:
        from worker.engines.iopaint_neighbours import why_not_runnable

        why = why_not_runnable(config)
        return f"IOPaint cannot be started: {why} (see iopaint in the configuration)" if why else ""
    if config.url is not None:
        return ""
    return "iopaint.models names it, but none of iopaint.command, iopaint.venv and iopaint.url says where IOPaint is"
