"""Schedule, parameter groups, weight averaging and precision."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from fundus_training.errors import ConfigError
from fundus_training.models import DMSNet
from fundus_training.optimise import averaged_model, build_optimizer, choose_precision, rate_at
from fundus_training.presets import TrainConfig, preset

RECIPE = TrainConfig(epochs=10, learning_rate=0.1, warmup_epochs=2.0)


@pytest.fixture(scope="module")
def model() -> DMSNet:
    return DMSNet(replace(preset("tiny").model, trunk="mobilenet_v2"))


def _rates(config: TrainConfig, steps_per_epoch: int = 5) -> list[float]:
    steps = range(config.epochs * steps_per_epoch + 1)
    return [rate_at(step, steps_per_epoch=steps_per_epoch, config=config) for step in steps]


def test_the_rate_warms_up_linearly_to_its_peak() -> None:
    rates = _rates(RECIPE)
    assert rates[:11] == pytest.approx([0.1 * (step + 1) / 11 for step in range(11)])
    assert max(rates) == rates[10] == pytest.approx(0.1)


def test_the_rate_falls_by_a_cosine_to_zero_after_the_last_step() -> None:
    rates = _rates(RECIPE)
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))
    assert rates[30] == pytest.approx(0.05)
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)
    assert 0.0 < rates[-2] < 0.001


def test_without_warm_up_the_rate_starts_at_its_peak() -> None:
    assert _rates(replace(RECIPE, warmup_epochs=0.0))[0] == pytest.approx(0.1)


def test_a_warm_up_longer_than_the_training_never_divides_by_nothing() -> None:
    rates = _rates(replace(RECIPE, epochs=1, warmup_epochs=3.0))
    assert rates == sorted(rates)
    assert 0.0 < rates[0] < rates[-1] < 0.1


def test_every_parameter_is_in_one_group_and_only_matrices_decay(model: DMSNet) -> None:
    groups = build_optimizer(model, replace(RECIPE, trunk_rate_factor=0.25)).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    seen: list[str] = []
    for group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            seen.append(name)
            assert group["weight_decay"] == (RECIPE.weight_decay if parameter.ndim >= 2 else 0.0)
            assert group["rate_factor"] == (0.25 if name.startswith("trunk.") else 1.0)
    assert sorted(seen) == sorted(names.values())
    # the logged rate is the last group's
    assert groups[-1]["rate_factor"] == 1.0


def test_the_average_follows_the_stated_decay() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    averaged = averaged_model(model, 0.25)  # type: ignore[arg-type]
    expected, found = None, []
    for step, value in enumerate([8.0, 4.0, -2.0, 1.0]):
        torch.nn.init.constant_(model.weight, value)
        averaged.update_parameters(model)
        decay = min(0.25, (1 + step) / (10 + step))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        found.append((float(averaged.module.weight.detach()), expected))
    for came, wanted in found:
        assert came == pytest.approx(wanted, rel=1e-6)
    assert (1 + 3) / (10 + 3) > 0.25  # so that both sides of the minimum were met


def test_the_average_covers_batch_norm_statistics_and_counts_steps_plainly() -> None:
    norm = torch.nn.BatchNorm1d(1)
    averaged = averaged_model(norm, 0.9)  # type: ignore[arg-type]
    for mean in (0.0, 11.0):
        norm.running_mean.fill_(mean)
        norm.num_batches_tracked.add_(1)
        averaged.update_parameters(norm)
    assert float(averaged.module.running_mean) == pytest.approx(11.0 * (1 - 2 / 11))
    assert int(averaged.module.num_batches_tracked) == 2


def test_automatic_precision_on_the_cpu_is_full() -> None:
    assert choose_precision("auto", torch.device("cpu")) == torch.float32
    assert choose_precision("bf16", torch.device("cpu")) == torch.bfloat16


def test_fp16_on_the_cpu_is_refused() -> None:
    with pytest.raises(ConfigError, match="fp16 needs a CUDA device"):
        choose_precision("fp16", torch.device("cpu"))
