"""Trunks are torchvision's, key by key, and pretrained files load into them or say why not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fundus_training.errors import CheckpointError
from fundus_training.models import DMSNet, ModelConfig, load_trunk_weights
from fundus_training.models.trunks import TRUNKS, build_trunk

# Parameters of torchvision's models, less the classifier's and MobileNetV2's last convolution's.
PARAMETERS = {
    "resnet18": 11_176_512,
    "resnet34": 21_284_672,
    "resnet50": 23_508_032,
    "resnet101": 42_500_160,
    "resnet152": 58_143_808,
    "resnext50_32x4d": 25_028_904 - (2048 + 1) * 1000,
    "mobilenet_v2": 3_504_872 - (1280 + 1) * 1000 - (320 + 2) * 1280,
}
CONVOLUTIONS = {
    "resnet18": 20,
    "resnet34": 36,
    "resnet50": 53,
    "resnet101": 104,
    "resnet152": 155,
    "resnext50_32x4d": 53,
    "mobilenet_v2": 51,
}
# Names and shapes as in torchvision's published state dicts.
TENSORS = {
    "resnet18": {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_var": (64,),
        "layer1.1.conv2.weight": (64, 64, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer2.0.downsample.1.num_batches_tracked": (),
        "layer4.1.bn2.bias": (512,),
    },
    "resnet152": {
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.0.conv1.weight": (64, 64, 1, 1),
        "layer2.7.conv2.weight": (128, 128, 3, 3),
        "layer3.35.conv3.weight": (1024, 256, 1, 1),
        "layer4.2.bn3.weight": (2048,),
    },
    "resnext50_32x4d": {
        "layer1.0.conv2.weight": (128, 4, 3, 3),
        "layer4.2.conv2.weight": (1024, 32, 3, 3),
        "layer4.2.conv3.weight": (2048, 1024, 1, 1),
    },
    "mobilenet_v2": {
        "features.0.0.weight": (32, 3, 3, 3),
        "features.0.1.running_mean": (32,),
        "features.1.conv.0.0.weight": (32, 1, 3, 3),
        "features.1.conv.1.weight": (16, 32, 1, 1),
        "features.1.conv.2.bias": (16,),
        "features.2.conv.1.0.weight": (96, 1, 3, 3),
        "features.17.conv.2.weight": (320, 960, 1, 1),
        "features.17.conv.3.running_var": (320,),
    },
}


def unallocated(name: str) -> nn.Module:
    with torch.device("meta"):
        return build_trunk(name)


def small_model(trunk: str = "resnet18") -> DMSNet:
    return DMSNet(ModelConfig(trunk=trunk, image_size=64))


def file_of(path: Path, state: dict[str, Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def random_state(trunk: str = "resnet18") -> dict[str, Tensor]:
    state = build_trunk(trunk).state_dict()
    return {
        name: torch.rand_like(tensor) if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }


def test_every_trunk_has_a_recorded_size() -> None:
    assert PARAMETERS.keys() == CONVOLUTIONS.keys() == TRUNKS.keys()


@pytest.mark.parametrize("name", TRUNKS)
def test_a_trunk_has_torchvisions_parameters(name: str) -> None:
    trunk = unallocated(name)

    assert sum(parameter.numel() for parameter in trunk.parameters()) == PARAMETERS[name]
    # A convolution's weight and its norm's five tensors.
    assert len(trunk.state_dict()) == 6 * CONVOLUTIONS[name]


@pytest.mark.parametrize("name", TENSORS)
def test_a_trunk_has_torchvisions_keys_and_shapes(name: str) -> None:
    state = unallocated(name).state_dict()

    assert {key: tuple(state[key].shape) for key in TENSORS[name]} == TENSORS[name]


@pytest.mark.parametrize("name", TRUNKS)
@pytest.mark.parametrize(("size", "grid"), [(64, 2), (65, 3), (224, 7)])
def test_a_trunk_halves_five_times_rounding_up(name: str, size: int, grid: int) -> None:
    maps = unallocated(name)(torch.empty(1, 3, size, size, device="meta"))

    assert maps.shape == (1, TRUNKS[name].channels, grid, grid)


@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d"])
def test_bottlenecks_stride_in_their_3x3_convolution(name: str) -> None:
    modules = dict(unallocated(name).named_modules())

    strides = [getattr(modules[f"layer2.0.conv{i}"], "stride", None) for i in (1, 2, 3)]
    assert strides == [(1, 1), (2, 2), (1, 1)]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("trunk", ["resnet18", "mobilenet_v2"])
def test_weights_load_without_the_classifier(tmp_path: Path, trunk: str, suffix: str) -> None:
    state = random_state(trunk)
    beyond = {"fc.weight": torch.zeros(2), "classifier.1.bias": torch.zeros(2)}
    beyond["features.18.0.weight"] = torch.zeros(2)
    model = small_model(trunk)

    load_trunk_weights(model, file_of(tmp_path / f"weights{suffix}", state | beyond))

    loaded = model.trunk.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_counters_may_be_absent(tmp_path: Path) -> None:
    state = {k: v for k, v in random_state().items() if not k.endswith("num_batches_tracked")}
    model = small_model()

    load_trunk_weights(model, file_of(tmp_path / "weights.safetensors", state))

    assert torch.equal(model.trunk.state_dict()["bn1.weight"], state["bn1.weight"])


def test_keys_that_do_not_fit_are_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    state = random_state()
    del state["layer1.0.conv1.weight"]
    state["layer5.0.conv1.weight"] = torch.zeros(1)
    state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    path = file_of(tmp_path / "weights.safetensors", state)
    model = small_model()
    before = model.trunk.state_dict()["bn1.weight"].clone()

    with pytest.raises(CheckpointError) as caught:
        load_trunk_weights(model, path)

    message = str(caught.value)
    assert "missing layer1.0.conv1.weight" in message
    assert "unexpected layer5.0.conv1.weight" in message
    assert "mis-shaped conv1.weight (64, 3, 3, 3) instead of (64, 3, 7, 7)" in message
    assert torch.equal(model.trunk.state_dict()["bn1.weight"], before)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    path = file_of(tmp_path / "weights.safetensors", random_state("mobilenet_v2"))

    with pytest.raises(CheckpointError, match=r"do not fit trunk resnet18.*and [0-9]+ more"):
        load_trunk_weights(small_model(), path)


@pytest.mark.parametrize("name", ["absent.pth", "absent.safetensors"])
def test_an_absent_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=f"{name} do not exist"):
        load_trunk_weights(small_model(), tmp_path / name)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "weights.onnx"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"not weights")

    with pytest.raises(CheckpointError, match=name):
        load_trunk_weights(small_model(), path)


def test_a_whole_checkpoint_is_no_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": random_state(), "epoch": 3}, path)

    with pytest.raises(CheckpointError, match="flat mapping"):
        load_trunk_weights(small_model(), path)


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(nn.Linear(2, 2), path)

    with pytest.raises(CheckpointError, match="plain state dict"):
        load_trunk_weights(small_model(), path)


def test_the_pretrained_mobilenet_loads(fundus_data: Path) -> None:
    path = fundus_data.parent / "weights" / "mobilenet_v2_imagenet_trunk.safetensors"
    if not path.is_file():
        pytest.skip("needs the pretrained trunk beside the data: ../weights is not there")
    model = small_model("mobilenet_v2").eval()

    load_trunk_weights(model, path)

    with torch.no_grad():
        maps = model.trunk(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    # The norms' statistics belong to the weights: wrong ones would let the activations run away.
    assert 0.1 < maps.std() < 10
