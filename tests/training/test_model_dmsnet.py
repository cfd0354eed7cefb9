"""The whole model: every option runs, eyes and pairs do not leak into one another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fundus_training.errors import ConfigError
from fundus_training.models import DMSNet, ModelConfig, folded_copy
from fundus_training.presets import PRESETS

SIZE = 96
# Results of one model in float32, summed in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
TABLE_2: dict[str, dict[str, Any]] = {
    "w/o CAFM": {"cafm": False},
    "w/o CIAM": {"ciam": False},
    "w/o CCAM": {"ccam": False},
    "w/o CASFM": {"casfm": False},
    "w/o OSIM (left)": {"osim_left": False},
    "w/o OSIM (right)": {"osim_right": False},
    "w/o OSIM (both)": {"osim_left": False, "osim_right": False},
}
OPTIONS: list[dict[str, Any]] = [
    {"num_classes": 3},
    {"task": "softmax"},
    {"osim_scale_reading": "kernel"},
    {"osim_attention": "7x7"},
    {"osim_weights": "per_eye"},
    {"casfm_pool_factor": "literal"},
    {"positional_embedding": "spatial"},
    {"mixing": "symmetric"},
    {"mixing": "symmetric", "ccam_difference": "absolute", "positional_embedding": "spatial"},
    {"attention_heads": 2, "attention_width": 32},
    {"cafm_gate": "softmax"},
    {"ccam_difference": "absolute"},
    {"dense_depth": 1, "dense_growth": 16},
    {"dropout": 0.0},
    {"image_size": 64},
    {"image_size": 100},
]


def made(**options: Any) -> DMSNet:
    """A small model in evaluation mode whose norms have statistics of their own."""
    torch.manual_seed(0)
    config = ModelConfig(**{"trunk": "resnet18", "image_size": SIZE, **options})
    model = DMSNet(config)
    with torch.no_grad():
        for _ in range(3):
            model(*pairs(4, config.image_size))
        for parameter in model.head.linear.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def pairs(number: int, size: int = SIZE) -> tuple[Tensor, Tensor]:
    left, right = torch.randn(2, number, 3, size, size)
    return left, right


@pytest.fixture(scope="module")
def model() -> DMSNet:
    return made()


def sizes(**options: Any) -> dict[str, int]:
    with torch.device("meta"):
        model = DMSNet(ModelConfig(**{"trunk": "resnet18", **options}))
    return {name: parameter.numel() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("options", [{}, *OPTIONS, *TABLE_2.values()], ids=str)
@torch.no_grad()
def test_every_option_gives_logits(options: dict[str, Any]) -> None:
    model = made(**options)
    left, right = pairs(2, model.config.image_size)

    output = model(left, right)

    for logits in output:
        assert logits.shape == (2, model.config.num_classes)
        assert logits.isfinite().all()
    torch.testing.assert_close(folded_copy(model)(left, right), output, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", TABLE_2.values(), ids=TABLE_2.keys())
def test_a_removed_component_takes_its_parameters_with_it(options: dict[str, Any]) -> None:
    whole, ablated = sizes(osim_weights="per_eye"), sizes(osim_weights="per_eye", **options)

    for switch in options:
        component = switch.replace("osim_", "osim.")
        own = [n for n in whole if f".{component}." in f".{n}" or f"{component}.fusion" in n]
        own += [n for n in whole if switch == "cafm" and ".fusion." in n]
        assert own
        kept = [name for name in own if ablated.get(name) == whole[name]]
        assert kept == []
    assert sum(ablated.values()) < sum(whole.values())


def test_without_the_auxiliary_head_eyes_have_no_logits() -> None:
    model = made(auxiliary_head=False)
    output = model(*pairs(2))

    assert output.left_logits is None
    assert output.right_logits is None
    assert model.encode(pairs(2)[0]).logits is None


@torch.no_grad()
def test_encode_and_fuse_are_forward_in_two_steps(model: DMSNet) -> None:
    left, right = pairs(3)
    output = model(left, right)

    encoded_left, encoded_right = model.encode(left, "left"), model.encode(right, "right")
    logits = model.fuse(encoded_left.features, encoded_right.features, torch.ones(3), torch.ones(3))

    assert encoded_left.features.shape == (3, 256, 3, 3)
    torch.testing.assert_close(logits, output.logits, **CLOSE)
    torch.testing.assert_close(encoded_left.logits, output.left_logits, **CLOSE)
    torch.testing.assert_close(encoded_right.logits, output.right_logits, **CLOSE)


@torch.no_grad()
def test_each_eye_may_have_its_own_encoder() -> None:
    model = made(osim_weights="per_eye")
    left, right = pairs(2)

    features = model.encode(left, "left").features
    assert not torch.allclose(features, model.encode(left, "right").features)
    logits = model.fuse(
        features, model.encode(right, "right").features, torch.ones(2), torch.ones(2)
    )
    torch.testing.assert_close(model(left, right).logits, logits, **CLOSE)


@pytest.mark.parametrize("options", [{"osim_weights": "per_eye"}, {"osim_left": False}], ids=str)
@torch.no_grad()
def test_one_batch_may_hold_both_eyes(options: dict[str, Any]) -> None:
    model = made(**options)
    images = pairs(3)[0]
    left, right = model.encode(images, "left"), model.encode(images, "right")
    assert not torch.allclose(left.features, right.features)

    mixed = model.encode_each(images, torch.tensor([1.0, 0.0, 1.0]))

    for came, of_left, of_right in zip(mixed, left, right, strict=True):
        torch.testing.assert_close(came[[0, 2]], of_left[[0, 2]], **CLOSE)
        torch.testing.assert_close(came[1], of_right[1], **CLOSE)


@pytest.mark.parametrize("mixing", ["per_eye", "symmetric"])
@torch.no_grad()
def test_a_pairs_result_does_not_depend_on_its_batch(mixing: str) -> None:
    model = made(mixing=mixing)
    left, right = pairs(4)
    left_present = torch.tensor([1.0, 0.0, 1.0, 1.0])
    right_present = torch.tensor([1.0, 1.0, 1.0, 0.0])
    whole = model(left, right, left_present, right_present)

    for i in range(4):
        one = slice(i, i + 1)
        alone = model(left[one], right[one], left_present[one], right_present[one])
        for logits_alone, logits in zip(alone, whole, strict=True):
            torch.testing.assert_close(logits_alone, logits[one], **CLOSE)
    assert whole.logits.std(dim=0).min() > 1e-3  # else the comparison shows nothing


@pytest.mark.parametrize("difference", ["signed", "absolute"])
@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_symmetric_models_ignore_which_eye_is_which(difference: str, training: bool) -> None:
    model = made(mixing="symmetric", ccam_difference=difference, dropout=0.0).train(training)
    left, right = pairs(4)
    left_present = torch.tensor([1.0, 0.0, 1.0, 1.0])
    right_present = torch.tensor([1.0, 1.0, 1.0, 0.0])

    output = model(left, right, left_present, right_present)
    swapped = model(right, left, right_present, left_present)

    torch.testing.assert_close(swapped.logits, output.logits, **CLOSE)
    torch.testing.assert_close(swapped.left_logits, output.right_logits, **CLOSE)


@torch.no_grad()
def test_per_eye_models_know_which_eye_is_which(model: DMSNet) -> None:
    left, right = pairs(2)

    assert (model(left, right).logits - model(right, left).logits).abs().max() > 1e-2


@pytest.mark.parametrize("garbage", [0.0, 1e6, float("nan"), float("inf")])
@torch.no_grad()
def test_an_absent_eyes_features_do_not_matter(model: DMSNet, garbage: float) -> None:
    right = model.encode(pairs(2)[1]).features
    absent, present = torch.zeros(2), torch.ones(2)

    expected = model.fuse(torch.rand_like(right), right, absent, present)
    logits = model.fuse(torch.full_like(right, garbage), right, absent, present)

    assert logits.isfinite().all()
    assert torch.equal(logits, expected)
    assert not torch.allclose(model.fuse(torch.rand_like(right), right, present, present), logits)


def test_an_absent_eyes_features_get_no_gradient(model: DMSNet) -> None:
    left = torch.full((1, 256, 3, 3), float("nan"), requires_grad=True)
    right = torch.rand(1, 256, 3, 3, requires_grad=True)

    model.fuse(left, right, torch.zeros(1), torch.ones(1)).sum().backward()

    assert left.grad is not None
    assert (left.grad == 0).all()
    assert right.grad is not None
    assert right.grad.isfinite().all()
    assert (right.grad != 0).any()


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (2, 1, SIZE, SIZE), (3, SIZE, SIZE)], ids=str)
def test_images_of_another_shape_are_refused(model: DMSNet, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="expects"):
        model.encode(torch.zeros(shape))
    with pytest.raises(ConfigError, match="expects"):
        model(pairs(2)[0], torch.zeros(shape))


@pytest.mark.parametrize("name", PRESETS)
def test_every_parameter_of_a_preset_learns(name: str) -> None:
    torch.manual_seed(0)
    # The parameters are those of the preset at its own size; small images are fast.
    size = min(PRESETS[name].model.image_size, 128)
    model = DMSNet(replace(PRESETS[name].model, image_size=size))

    output = model(*pairs(3, size), torch.tensor([0.0, 1, 1]), torch.tensor([1.0, 1, 0]))
    weights = torch.randn(3, 8)
    sum((logits * weights).sum() for logits in output).backward()

    still = [
        parameter_name
        for parameter_name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert still == []
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
