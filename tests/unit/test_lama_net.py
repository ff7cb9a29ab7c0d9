"""The network is the published one, in each form it is run in, and takes no other network's weights for its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcq.loading import for_good

DATA = Path(__file__).parents[1] / "data" / "lama"
CASES = ("64x64", "96x128", "70x101", "24x40", "batch2_64x64")
FEATURES = {1: "l", 3: "l", 4: "lg", 5: "lg"}  # of the case 64x64: after which layer, which parts


@pytest.fixture(scope="module", autouse=True)
def with_torch() -> None:
    """Loaded here, for two seconds: every worker reads this file, and only one runs its tests."""
    global torch, safe_open, save_file, winograd
    global NotThisNetwork, expected_shapes, fast_form, generator_from, random_tensors
    with for_good():
        torch = pytest.importorskip("torch")
        from safetensors import safe_open
        from safetensors.torch import save_file

        from worker.engines import winograd
        from worker.engines.lama_net import (
            NotThisNetwork,
            expected_shapes,
            fast_form,
            generator_from,
            random_tensors,
        )


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def weights() -> dict[str, Any]:
    with np.load(DATA / "small_weights.npz") as arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    with np.load(DATA / "small_cases.npz") as arrays:
        return dict(arrays)


def batched(case: str, cases: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Image, mask, and what the reference predicts; sides that are no multiple of 8 are mirrored to one."""
    image, mask, predicted = (cases[f"{case}__{name}"] for name in ("image_u8", "mask_u8", "predicted"))
    if image.ndim == 3:
        image, mask, predicted = image[None], mask[None], predicted[None]
    more = [(0, predicted.shape[axis] - image.shape[axis]) for axis in (2, 3)]
    image = np.pad(image, [(0, 0), (0, 0), *more], mode="symmetric").astype(np.float32) / 255
    mask = np.pad(mask, [(0, 0), *more], mode="symmetric") > 0
    return torch.from_numpy(image), torch.from_numpy(mask[:, None].astype(np.float32)), torch.from_numpy(predicted)


def a_picture(height: int, width: int, batch: int = 1) -> tuple[Any, Any]:
    chance = torch.Generator().manual_seed(3)
    coarse = torch.rand((batch, 3, 6, 6), generator=chance)
    image = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    mask = torch.zeros(batch, 1, height, width)
    mask[..., height // 4 : height // 2, width // 3 :] = 1
    return image, mask


def furthest(one: Any, other: Any) -> float:
    return float((one - other).abs().max())


# --- equal to the reference ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", ["eager", "folded", "winograd"])
def test_each_fp32_form_predicts_what_the_reference_does(
    case: str, form: str, weights: dict[str, Any], cases: dict[str, Any]
) -> None:
    image, mask, predicted = batched(case, cases)
    network = generator_from(weights)
    if form != "eager":
        network = fast_form(network, with_winograd=form == "winograd")
    with torch.inference_mode():
        error = furthest(network(image, mask), predicted)
    print(f"{form} {case}: {error:.1e}")
    assert error < (5e-6 if form == "eager" else 2e-5)


def test_features_on_the_way_are_those_of_the_reference(weights: dict[str, Any], cases: dict[str, Any]) -> None:
    image, mask, _ = batched("64x64", cases)
    features = (torch.cat([image * (1 - mask), mask], dim=1), None)
    with torch.inference_mode():
        for place, layer in enumerate(generator_from(weights).model[1:6], start=1):
            features = layer(features)
            for part in FEATURES.get(place, ""):
                reference = torch.from_numpy(cases[f"64x64__after_{place}_{part}"])
                mine = features["lg".index(part)][0]
                error = furthest(mine, reference)
                print(f"after {place}, {part}: {error:.1e} of {float(reference.abs().max()):.1f}")
                assert error < 1e-4


@pytest.mark.parametrize(("precision", "within"), [("bf16", 0.06), ("fp16", 0.015)])
@pytest.mark.parametrize("case", CASES)
def test_half_precisions_stay_near_the_reference(
    case: str, precision: Any, within: float, weights: dict[str, Any], cases: dict[str, Any]
) -> None:
    image, mask, predicted = batched(case, cases)
    answer = fast_form(generator_from(weights), precision=precision)(image, mask)
    print(f"{precision} {case}: {furthest(answer, predicted):.1e}")
    assert answer.dtype == torch.float32
    assert 0 < furthest(answer, predicted) < within


# Tiles that end with the picture and that do not, in both directions; strips of the widest layers: one, several and a
# last one of 8 rows; the smallest that there is.
@pytest.mark.parametrize(
    ("height", "width"), [(16, 16), (16, 40), (40, 16), (56, 24), (128, 1048), (1048, 64), (136, 520)]
)
@pytest.mark.parametrize("with_winograd", [True, False])
def test_fast_forms_are_the_eager_form_at_every_size(height: int, width: int, with_winograd: bool) -> None:
    tensors = random_tensors(ngf=8, blocks=2, seed=1)
    image, mask = a_picture(height, width)
    with torch.inference_mode():
        expected = generator_from(tensors)(image, mask)
    answer = fast_form(generator_from(tensors), with_winograd=with_winograd)(image, mask)
    assert answer.shape == (1, 3, height, width)
    assert furthest(answer, expected) < 2e-5


def test_pictures_of_a_batch_do_not_meet() -> None:
    network = fast_form(generator_from(random_tensors(ngf=8, blocks=1)))
    image, mask = a_picture(48, 64, batch=3)
    together = network(image, mask)
    for place in range(3):
        assert torch.equal(together[place], network(image[place : place + 1], mask[place : place + 1])[0])


def test_the_form_for_gpus_does_whole_batches_of_whole_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no GPU here: the same code, told that a CPU is not one."""
    tensors = random_tensors(ngf=8, blocks=2)
    image, mask = a_picture(72, 136, batch=3)
    with torch.inference_mode():
        expected = generator_from(tensors)(image, mask)
    network = fast_form(generator_from(tensors), with_winograd=False)
    monkeypatch.setattr(network, "_one_by_one", False)
    assert furthest(network(image, mask), expected) < 2e-5


def test_what_is_seen_through_the_mask_changes_nothing(weights: dict[str, Any]) -> None:
    network = fast_form(generator_from(weights))
    image, mask = a_picture(64, 64)
    painted = torch.where(mask > 0, torch.rand_like(image), image)
    assert torch.equal(network(image, mask), network(painted, mask))


def test_nothing_is_kept_for_training(weights: dict[str, Any]) -> None:
    network = fast_form(generator_from(weights))
    answer = network(*a_picture(32, 32))
    assert not answer.requires_grad
    assert answer.grad_fn is None
    assert not [name for name, weight in network.named_parameters() if weight.requires_grad]
    assert not generator_from(weights)(*a_picture(32, 32)).requires_grad


# --- from a checkpoint -----------------------------------------------------------------------------------------------


def test_big_lama_has_the_published_count_of_entries_and_parameters() -> None:
    shapes = expected_shapes()
    assert len(shapes) == 989
    parameters = [
        math.prod(shape)
        for name, shape in shapes.items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    ]
    assert (len(parameters), sum(parameters)) == (533, 50_975_875)
    assert len([name for name in shapes if name.endswith("num_batches_tracked")]) == 152


def test_random_weights_have_the_names_of_a_checkpoint_and_predict_no_black_or_white() -> None:
    tensors = random_tensors(ngf=8, blocks=3, seed=5)
    assert {name: tensor.shape for name, tensor in tensors.items()} == expected_shapes(8, 3)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in random_tensors(8, 3, seed=5).items())
    answer = fast_form(generator_from(tensors))(*a_picture(64, 64))
    assert 0.02 < float(answer.min()) < float(answer.max()) < 0.98
    assert float(answer.std()) > 0.02


@pytest.mark.parametrize("prefix", ["", "generator.", "model.generator.", "some.thing.else."])
def test_the_prefix_is_found(prefix: str, weights: dict[str, Any]) -> None:
    renamed = {prefix + name.removeprefix("generator."): tensor for name, tensor in weights.items()}
    renamed["val_evaluator.scores.0.weight"] = torch.zeros(3)
    image, mask = a_picture(32, 32)
    assert torch.equal(generator_from(renamed)(image, mask), generator_from(weights)(image, mask))


def test_counters_are_not_asked_for(weights: dict[str, Any]) -> None:
    without = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    assert generator_from(without).blocks == 2


def test_double_and_half_weights_are_taken_as_single(weights: dict[str, Any]) -> None:
    double = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    image, mask = a_picture(32, 32)
    assert torch.equal(generator_from(double)(image, mask), generator_from(weights)(image, mask))


def test_a_mapped_file_is_used_where_it_lies(weights: dict[str, Any], tmp_path: Path) -> None:
    save_file(weights, tmp_path / "small.safetensors")
    with safe_open(tmp_path / "small.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    held = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    network = generator_from(tensors)
    assert {f"generator.{name}": tensor.data_ptr() for name, tensor in network.state_dict().items()} == {
        name: place for name, place in held.items() if not name.endswith("num_batches_tracked")
    }


def test_the_fast_form_leaves_nothing_of_the_generator(weights: dict[str, Any]) -> None:
    generator = generator_from(weights)
    fast_form(generator)
    assert not list(generator.parameters())


def without(names: str, weights: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor for name, tensor in weights.items() if names not in name}


def test_other_networks_are_refused_by_what_is_wrong_with_them(weights: dict[str, Any]) -> None:
    def refusal(tensors: dict[str, Any]) -> str:
        with pytest.raises(NotThisNetwork) as caught:
            generator_from(tensors)
        return str(caught.value)

    assert refusal({}) == (
        "not a big-lama network: no entry ends in model.1.ffc.convl2l.weight; there is nothing at all"
    )
    assert refusal({"conv1.weight": torch.zeros(64, 3, 7, 7), "conv1.bias": torch.zeros(64)}).endswith(
        "no entry ends in model.1.ffc.convl2l.weight; there is conv1.weight, conv1.bias"
    )
    gone = refusal(without("model.6.conv2.bn_g", weights))
    assert gone == (
        "not a big-lama network of 8 channels and 2 blocks; 4 missing: model.6.conv2.bn_g.weight, "
        "model.6.conv2.bn_g.bias, model.6.conv2.bn_g.running_mean, …"
    )
    head = "generator.model.18.weight"
    assert "1 of another kind: model.18.weight is (4, 8, 7, 7) of float32, not (3, 8, 7, 7) of real" in refusal(
        weights | {head: torch.zeros(4, 8, 7, 7)}
    )
    assert "is (3, 8, 7, 7) of int8, not" in refusal(weights | {head: torch.zeros(3, 8, 7, 7, dtype=torch.int8)})
    lfu = "generator.model.5.conv1.ffc.convg2g.lfu.conv_layer.weight"
    assert f"1 that it does not have: {lfu.removeprefix('generator.')}" in refusal(weights | {lfu: torch.zeros(1)})
    first = "generator.model.1.ffc.convl2l.weight"
    assert "has the shape (8,) and 2 residual" in refusal(weights | {first: torch.zeros(8)})
    assert "0 residual blocks follow" in refusal({first: weights[first]})
    assert "more than one network in one checkpoint: under a. and under generator." in refusal(
        weights | {"a.model.1.ffc.convl2l.weight": weights[first]}
    )


# --- what it does not take ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [True, False])
def test_sizes_it_cannot_do_are_refused_in_words(fast: bool, weights: dict[str, Any]) -> None:
    network = fast_form(generator_from(weights)) if fast else generator_from(weights)
    for height, width in ((8, 64), (64, 8), (60, 64), (64, 101)):
        with pytest.raises(ValueError, match=f"multiples of 8 and at least 16, not {width}x{height}; pad the picture"):
            network(torch.zeros(1, 3, height, width), torch.zeros(1, 1, height, width))
    with pytest.raises(ValueError, match=r"not \(1, 4, 64, 64\) and \(1, 1, 64, 64\)"):
        network(torch.zeros(1, 4, 64, 64), torch.zeros(1, 1, 64, 64))
    with pytest.raises(ValueError, match=r"not \(2, 3, 64, 64\) and \(1, 1, 64, 64\)"):
        network(torch.zeros(2, 3, 64, 64), torch.zeros(1, 1, 64, 64))


def test_a_precision_that_there_is_not_is_refused_before_the_network_is_touched(weights: dict[str, Any]) -> None:
    generator = generator_from(weights)
    with pytest.raises(ValueError, match="no precision 'int8'; there are fp32, bf16, fp16"):
        fast_form(generator, precision="int8")  # type: ignore[arg-type]
    assert generator(*a_picture(16, 16)).shape == (1, 3, 16, 16)


# --- Winograd's convolution alone ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(2, 2), (3, 7), (4, 4), (8, 12), (9, 5), (33, 64)])
def test_winograd_convolves_as_torch_does(height: int, width: int) -> None:
    chance = torch.Generator().manual_seed(height * width)
    picture = torch.randn((height, width, 6), generator=chance)
    kernels = [torch.randn((5, 6, 3, 3), generator=chance), torch.randn((7, 4, 3, 3), generator=chance)]
    biases = [torch.randn(5, generator=chance), torch.randn(7, generator=chance)]
    out = torch.full((height, width, 12), float("nan"))
    kept = [(winograd.kept_weights(kernel), bias) for kernel, bias in zip(kernels, biases, strict=True)]
    place = winograd.Workplace(height, width, 6)
    place.convolve(torch.randn_like(picture), kept, out=out)  # what one picture leaves behind does not reach the next
    place.convolve(picture, kept, out=out)
    padded = torch.nn.functional.pad(picture.permute(2, 0, 1)[None], (1, 1, 1, 1), mode="reflect").double()
    expected = torch.cat(
        [
            torch.nn.functional.conv2d(padded[:, : kernel.shape[1]], kernel.double(), bias.double())
            for kernel, bias in zip(kernels, biases, strict=True)
        ],
        dim=1,
    )
    # Sums of 54 products in single precision, in an order that each processor has of its own; a wrong term errs by one.
    assert furthest(out, expected[0].permute(1, 2, 0)) < 2e-5 * float(expected.abs().max())
