"""LaMa over HTTP beside the real IOPaint 1.6.0, both with the same small network: the same pixels."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from lcq.config import ModelsConfig
from lcq.embedded import PrivateServer
from tests.cluster import free_port, running_cluster
from tests.conftest import wait_until_sync
from tests.integration.test_http_pictures import a_picture, encoded, pixels_of, strokes
from tests.parity.test_iopaint import VENV
from tests.weight_files import safetensors
from worker.engines.iopaint_server import IopaintServer
from worker.weights import WeightStore

SMALL = Path(__file__).parents[1] / "data" / "lama" / "small_weights.npz"

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not (VENV / ".iopaint").exists(), reason="there is no IOPaint here: run make parity"),
]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Clients of the real one, which has a TorchScript of the network, and of LCQ, which has its weights."""
    torch = pytest.importorskip("torch")
    from worker.engines.lama_net import generator_from

    folder, port = tmp_path_factory.mktemp("lama"), free_port()
    with np.load(SMALL) as arrays:
        weights = dict(arrays)
    checkpoints = folder / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)

    class Published(torch.nn.Module):  # type: ignore[name-defined, misc]
        """What big-lama.pt takes and gives."""

        def __init__(self) -> None:
            super().__init__()
            tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
            self.generator = generator_from(tensors).eval()

        def forward(self, image: Any, mask: Any) -> Any:
            mask = mask.to(image.dtype)
            return mask * self.generator(image, mask) + (1 - mask) * image

    with torch.inference_mode():
        example = torch.rand(1, 3, 64, 96), torch.ones(1, 1, 64, 96, dtype=torch.int64)
        torch.jit.trace(Published(), example, check_trace=False).save(str(checkpoints / "big-lama.pt"))
    added = safetensors(folder / "small.safetensors", weights)
    WeightStore(folder / "c" / "models", ModelsConfig(allow=("any",))).add(added, "lama")
    around = {
        "LCQ_HTTP__ENABLED": "1", "LCQ_SCHEDULER_PORT": str(port), "LCQ_DISCOVERY__ENABLED": "0",
        "LCQ_AGENT__MODELS": '["lama"]', "LCQ_MODELS__ALLOW": '["any"]', "LCQ_STORAGE__BLOBS__FLOOR_MIB": "0",
    }  # fmt: skip
    server = IopaintServer((str(VENV / "bin" / "iopaint"),), "lama", device="cpu", more=["--model-dir", str(folder)])
    try:
        with (
            PrivateServer(folder / "redis") as redis,
            running_cluster(redis.url, folder / "c", **around) as cluster,
            httpx.Client(base_url=server.api.url, timeout=300) as real,
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as ours,
        ):
            cluster.start_scheduler()
            cluster.start_agent(slots=1)
            wait_until_sync(lambda: server.api.is_up() or not server.lives, timeout=300, what="IOPaint")
            assert server.lives, server.last_words()
            yield real, ours
    finally:
        server.end()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("size", [(300, 200), (301, 203), (900, 650)])
@pytest.mark.parametrize(
    "fields",
    [{}, {"hd_strategy": "Original"}, {"hd_strategy": "Resize", "hd_strategy_resize_limit": 400}],
    ids=["crop", "original", "resize"],
)
def test_an_answer_is_theirs(
    both: tuple[httpx.Client, httpx.Client], size: tuple[int, int], fields: dict[str, Any]
) -> None:
    picture, mask = a_picture(*size), strokes(*size)
    body = {"image": base64.b64encode(encoded(picture, "PNG")).decode(),
            "mask": base64.b64encode(encoded(mask, "PNG")).decode(), **fields}  # fmt: skip
    theirs, mine = (client.post("/api/v1/inpaint", json=body) for client in both)
    assert theirs.status_code == mine.status_code == 200, mine.text
    found, wanted = pixels_of(mine.content).astype(int), pixels_of(theirs.content).astype(int)
    holes = mask[..., 3] > 0
    np.testing.assert_array_equal(found[~holes], wanted[~holes])
    assert not np.array_equal(wanted[holes], picture[holes])
    # Theirs is the network as it was published, ours its folded form: sums are rounded otherwise, and then cut off.
    assert np.abs(found - wanted).max() <= 1
    assert (found[holes] != wanted[holes]).mean() < 0.001
