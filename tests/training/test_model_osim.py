"""OSIM holds to equations 1 to 7, however it is computed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fundus_training.models.osim import OSIM, pool_matrix, resize_matrix

MAPS = ("input", "maximum", "mean", "scale 2", "scale 4")


def made(size: int, channels: int = 6, reading: str = "grid", attention: str = "1x1") -> OSIM:
    torch.manual_seed(0)
    osim = OSIM(channels, size, scale_reading=reading, attention=attention)
    for statistic in (osim.norm.running_mean, osim.norm.running_var, osim.norm.weight):
        assert statistic is not None
        torch.nn.init.uniform_(statistic, 0.5, 2.0)
    return osim.eval()


def selected(osim: OSIM, x: Tensor, map_name: str) -> Tensor:
    """What equation 5's concatenation holds of the first channel in the named map."""
    with torch.no_grad():
        osim.reduce.weight.zero_()
        osim.reduce.weight[0, MAPS.index(map_name) * x.shape[1]] = 1
        return osim.reduce_maps(x)[0, 0]


def maps_of(x: Tensor, reading: str) -> Tensor:
    """Equation 5 as it is printed."""
    size = x.shape[-2:]

    def pooled(scale: int) -> Tensor:
        if reading == "grid":
            return F.adaptive_avg_pool2d(x, scale)
        return F.avg_pool2d(x, scale, ceil_mode=True, count_include_pad=False)

    def resized(y: Tensor) -> Tensor:
        return F.interpolate(y, size=size, mode="bilinear", align_corners=False)

    maximum = F.adaptive_max_pool2d(x, 1) * torch.ones_like(x)
    mean = F.adaptive_avg_pool2d(x, 1) * torch.ones_like(x)
    return torch.cat([x, maximum, mean, resized(pooled(2)), resized(pooled(4))], dim=1)


# Of the map 0 .. 15, row by row. Quadrant means 2.5, 4.5, 10.5, 12.5; the resize puts a quarter
# of the way from one to the next at each inner pixel and repeats them at the border.
COUNTING = torch.arange(16.0).view(4, 4)
QUADRANTS = torch.tensor(
    [[2.5, 3.0, 4.0, 4.5], [4.5, 5.0, 6.0, 6.5], [8.5, 9.0, 10.0, 10.5], [10.5, 11.0, 12.0, 12.5]]
)


@pytest.mark.parametrize(
    ("map_name", "reading", "expected"),
    [
        ("input", "grid", COUNTING),
        ("maximum", "grid", torch.full((4, 4), 15.0)),
        ("mean", "grid", torch.full((4, 4), 7.5)),
        ("scale 2", "grid", QUADRANTS),
        ("scale 4", "grid", COUNTING),
        ("scale 2", "kernel", QUADRANTS),
        ("scale 4", "kernel", torch.full((4, 4), 7.5)),
    ],
)
def test_pooled_maps_are_as_computed_by_hand(map_name: str, reading: str, expected: Tensor) -> None:
    osim = made(4, channels=2, reading=reading)
    x = torch.stack([COUNTING, -COUNTING])[None]

    torch.testing.assert_close(selected(osim, x, map_name), expected)


@pytest.mark.parametrize("size", [2, 3, 7, 14])
@pytest.mark.parametrize("scale", [2, 4])
def test_grid_pools_are_adaptive_pools(size: int, scale: int) -> None:
    x = torch.randn(2, 3, size, size)

    pooled = x.flatten(2) @ pool_matrix(size, scale, reading="grid")

    torch.testing.assert_close(pooled, F.adaptive_avg_pool2d(x, scale).flatten(2))


@pytest.mark.parametrize(("side", "size"), [(1, 7), (2, 7), (4, 7), (4, 2)])
def test_resizing_is_bilinear(side: int, size: int) -> None:
    x = torch.randn(2, 3, side, side)

    resized = (x.flatten(2) @ resize_matrix(side, size)).view(2, 3, size, size)

    expected = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
    torch.testing.assert_close(resized, expected)


@pytest.mark.parametrize("reading", ["grid", "kernel"])
@pytest.mark.parametrize("attention", ["1x1", "7x7"])
@pytest.mark.parametrize("form", ["trained", "folded"])
def test_osim_equals_its_equations(reading: str, attention: str, form: str) -> None:
    osim = made(7, reading=reading, attention=attention)
    x = torch.randn(3, 6, 7, 7)

    with torch.no_grad():
        reduced = torch.relu(osim.norm(osim.reduce(maps_of(x, reading))))
        expected = reduced * torch.sigmoid(osim.attention(reduced))
        features = osim(x) if form == "trained" else osim.folded()(x)

    assert features.shape == (3, 3, 7, 7)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)


def test_constant_matrices_are_no_learned_state() -> None:
    assert not [name for name in made(7).state_dict() if "scales" in name]
