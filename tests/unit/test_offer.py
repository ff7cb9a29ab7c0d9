"""What a node offers follows from what its runners have shown."""

from __future__ import annotations

import pytest

from lcq.errors import UnknownModel
from lcq.models import Device, DeviceKind, Ease, ModelOffer
from worker.offer import Offer
from worker.protocol import Ready

BOTH = (DeviceKind.GPU, DeviceKind.CPU)
CPU = Device(id="cpu", kind=DeviceKind.CPU, slots=2)
GPU_A = Device(id="GPU-a", kind=DeviceKind.GPU, slots=2)
GPU_B = Device(id="GPU-b", kind=DeviceKind.GPU)


def ready(*models: str, left_out: dict[str, str] | None = None, **failed: str) -> Ready:
    return Ready(
        offers={model: ModelOffer(kinds=BOTH, engine="e") for model in models}, left_out=left_out or {}, failed=failed
    )


def shown(*devices: tuple[Device, Ready], **settings: object) -> Offer:
    offer = Offer([device for device, _ in devices], **settings)  # type: ignore[arg-type]
    for device, said in devices:
        offer.show(device.id, f"{device.id}/0", said, tested=True)
    return offer


def test_devices_and_their_models_are_offered_once_they_were_tested():
    offer = Offer([CPU, GPU_A])
    assert offer.undecided == ("cpu", "GPU-a")
    offer.show("cpu", "cpu/0", ready("lama"), tested=True)
    assert offer.undecided == ("GPU-a",)
    assert [device.id for device in offer.capability().devices] == ["cpu"]
    assert offer.capability().models["lama"].kinds == (DeviceKind.CPU,)
    offer.show("GPU-a", "GPU-a/0", ready("lama", "sd"), tested=True)
    assert offer.undecided == ()
    capability = offer.capability()
    assert capability.models["lama"].kinds == BOTH
    assert capability.models["sd"].kinds == (DeviceKind.GPU,)
    assert capability.left_out == {}


def test_a_runner_that_did_not_test_is_believed_only_beside_one_that_did():
    offer = Offer([GPU_A])
    offer.show("GPU-a", "GPU-a/1", ready("lama", "sd"), tested=False)
    assert offer.undecided == ("GPU-a",)
    assert offer.capability().devices == ()
    offer.show("GPU-a", "GPU-a/0", ready("lama", sd="sd came out black"), tested=True)
    assert set(offer.capability().models) == {"lama"}
    assert offer.capability().left_out == {"sd": "sd came out black"}
    offer.show("GPU-a", "GPU-a/0", ready("lama", "sd"), tested=False)  # restarted, and not tested
    assert set(offer.capability().models) == {"lama"}


def test_without_a_self_test_a_runner_is_believed():
    offer = Offer([CPU], is_tested=False)
    offer.show("cpu", "cpu/1", ready("lama"), tested=False)
    assert set(offer.capability().models) == {"lama"}


def test_a_model_is_offered_while_every_slot_has_it():
    offer = shown((CPU, ready("lama", "mat")))
    offer.show("cpu", "cpu/1", ready("lama"), tested=False)
    assert set(offer.capability().models) == {"lama"}
    offer.show("cpu", "cpu/1", ready("lama", "mat"), tested=False)
    assert set(offer.capability().models) == {"lama", "mat"}


def test_a_slot_without_anything_does_not_take_the_device_with_it():
    offer = shown((CPU, ready("lama")))
    offer.show("cpu", "cpu/1", ready(), tested=False)
    assert set(offer.capability().models) == {"lama"}


def test_a_device_that_fails_its_test_is_left_out_with_the_reason_and_the_rest_works():
    offer = shown((CPU, ready("lama")), (GPU_A, ready(lama="lama came out black on GPU-a")))
    assert offer.devices == ("cpu",)
    assert offer.capability().left_out == {"GPU-a": "lama came out black on GPU-a"}
    assert offer.capability().models["lama"].kinds == (DeviceKind.CPU,)


def test_of_two_gpus_the_one_that_fails_what_the_other_passes_is_broken():
    offer = shown((GPU_A, ready("lama", "sd")), (GPU_B, ready("sd", lama="lama came out black on GPU-b")))
    assert offer.devices == ("GPU-a",)
    assert offer.why_nothing("GPU-b") == "lama came out black on GPU-b"
    assert set(offer.capability().models) == {"lama", "sd"}


def test_a_model_that_fails_on_all_gpus_is_to_blame_itself():
    offer = shown((GPU_A, ready("sd", lama="black on a")), (GPU_B, ready("sd", lama="black on b")))
    assert offer.devices == ("GPU-a", "GPU-b")
    assert set(offer.capability().models) == {"sd"}
    assert "lama" in offer.capability().left_out


def test_a_model_that_only_one_of_two_gpus_has_is_not_granted_to_the_other():
    offer = shown((GPU_A, ready("lama", "sd")), (GPU_B, ready("lama")))
    assert offer.devices == ("GPU-a", "GPU-b")
    assert set(offer.capability().models) == {"lama"}
    assert "sd" in offer.capability().left_out


def test_a_device_without_a_runner_says_why_and_comes_back():
    offer = Offer([CPU, GPU_A])
    offer.show("cpu", "cpu/0", ready("lama"), tested=True)
    offer.withdraw("GPU-a", "GPU-a/0", "its runner exited with code 3")
    assert offer.undecided == ()
    assert offer.capability().left_out == {"GPU-a": "its runner exited with code 3"}
    offer.show("GPU-a", "GPU-a/0", ready("lama"), tested=True)
    assert offer.devices == ("cpu", "GPU-a")


def test_a_device_that_failed_must_pass_a_new_test_when_it_is_back():
    offer = shown((CPU, ready("lama")), (GPU_A, ready("lama")))
    offer.fault("GPU-a", "fell off the bus")
    assert offer.capability().left_out == {"GPU-a": "fell off the bus"}
    offer.fault("GPU-a", "")
    assert offer.devices == ("cpu",)
    offer.show("GPU-a", "GPU-a/0", ready("lama"), tested=True)
    assert offer.devices == ("cpu", "GPU-a")


def test_a_gpu_for_which_no_engine_has_a_model_says_what_is_missing():
    offer = shown((CPU, ready("cv2-ns")), (GPU_A, ready(left_out={"lama": "torch is not installed"})))
    assert offer.capability().left_out == {
        "GPU-a": "no engine here has a model for it (torch is not installed)",
    }


def test_what_is_missing_on_one_device_and_offered_on_another_is_told_by_device():
    said = ready("lama", left_out={"mat": "no server"})
    offer = shown((CPU, said), (GPU_A, ready("mat", "lama")))
    assert offer.capability().left_out == {"mat on cpu": "no server"}


def test_only_chosen_models_are_offered_and_an_unknown_one_is_refused_with_the_nearest():
    offer = shown((CPU, ready("lama", "mat", left_out={"sd": "no weights"})), models=("lama", "sd"))
    offer.check_models()
    assert set(offer.capability().models) == {"lama"}
    assert offer.capability().left_out["sd"] == "no weights"
    with pytest.raises(UnknownModel, match="did you mean 'lama'"):
        shown((CPU, ready("lama")), models=("lamma",)).check_models()


def test_no_model_is_called_unknown_while_a_device_has_shown_nothing():
    offer = Offer([CPU, GPU_A], models=("sd",))
    offer.show("cpu", "cpu/0", ready("lama"), tested=True)
    offer.withdraw("GPU-a", "GPU-a/0", "its runner exited with code 3")
    offer.check_models()
    assert offer.capability().left_out["sd"] == "no device here has it"


def test_offers_of_several_kinds_of_device_become_one():
    on_gpu = ModelOffer(
        kinds=BOTH, engine="e", vram_mib=2000, seconds={DeviceKind.GPU: 0.5}, eases=(Ease.LOWER_PRECISION,)
    )
    on_cpu = ModelOffer(
        kinds=BOTH, engine="e", memory_mib=900, seconds={DeviceKind.CPU: 5.0}, eases=(Ease.SMALLER_TILE,)
    )
    offer = shown((CPU, Ready(offers={"lama": on_cpu})), (GPU_A, Ready(offers={"lama": on_gpu})))
    assert offer.capability().models["lama"] == ModelOffer(
        kinds=BOTH,
        engine="e",
        vram_mib=2000,
        memory_mib=900,
        seconds={DeviceKind.CPU: 5.0, DeviceKind.GPU: 0.5},
        eases=(Ease.SMALLER_TILE, Ease.LOWER_PRECISION),
    )


def test_functions_of_one_node_need_not_have_the_same_models():
    kind = DeviceKind.SERVERLESS
    one, other, third = (Device(id=name, kind=kind, slots=4) for name in ("one", "other", "third"))

    def has(**models: float) -> Ready:
        return Ready(offers={name: ModelOffer(kinds=(kind,), seconds={kind: s}) for name, s in models.items()})

    devices = ((one, has(lama=4.0, telea=0.5)), (other, has(lama=9.0)), (CPU, ready("lama")))
    capability = shown(*devices, is_tested=False).capability()
    assert {model: set(offer.kinds) for model, offer in capability.models.items()} == {
        "lama": {DeviceKind.CPU, kind}, "telea": {kind}
    }  # fmt: skip
    assert capability.models["lama"].seconds[kind] == 9.0, "as the slowest says"
    lanes = {device.id: capability.lanes_of(device) for device in capability.devices}
    assert lanes == {"one": {"lama", "telea"}, "other": {"lama"}, "cpu": {"lama"}}
    assert capability.left_out == {}
    same = shown((one, has(lama=4.0)), (third, has(lama=4.0)), is_tested=False).capability()
    assert [device.only for device in same.devices] == [(), ()], "as agents have always told it"
