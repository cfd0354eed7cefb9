"""CAFM, CCAM, CIAM and their dense paths hold to what docs/model.md says of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fundus_training.models.cafm import CAFM
from fundus_training.models.ccam import CCAM
from fundus_training.models.ciam import CIAM, spatial_similarity
from fundus_training.models.dense import DenseBlock, DualPath, FoldedDualPath

# Float32 sums of some hundred terms in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def made_cafm(channels: int = 6, gate: str = "sigmoid") -> CAFM:
    torch.manual_seed(0)
    return CAFM(channels, gate=gate)


def made_paths(*, symmetric: bool = False) -> DualPath:
    torch.manual_seed(0)
    return DualPath(6, depth=3, growth=4, symmetric=symmetric).eval()


def pair(channels: int = 6, size: int = 5) -> tuple[Tensor, Tensor]:
    left, right = torch.rand(2, 3, channels, size, size)
    return left, right


def doubling(cafm: CAFM) -> CAFM:
    """Makes each bottleneck the identity, so that the descriptor is average plus maximum."""
    first, _, last = cafm.bottleneck
    with torch.no_grad():
        for layer in (first, last):
            layer.weight.copy_(torch.eye(*layer.weight.shape[:2])[:, :, None, None])
            layer.bias.zero_()
    return cafm


def zeroed_gate(cafm: CAFM) -> CAFM:
    for parameter in cafm.gate.parameters():
        torch.nn.init.zeros_(parameter)
    return cafm


def test_the_affinity_is_as_computed_by_hand() -> None:
    cafm = doubling(made_cafm(channels=2))
    left = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    right = torch.tensor([0.5, 1.0]).view(1, 2, 1, 1)

    with torch.no_grad():
        descriptors = cafm.descriptor(left), cafm.descriptor(right)
        attended_left, attended_right = cafm.exchange(left, right)

    torch.testing.assert_close(descriptors[0], torch.tensor([[2.0, 0.0]]))
    torch.testing.assert_close(descriptors[1], torch.tensor([[1.0, 2.0]]))
    # The affinity is [[2, 4], [0, 0]]. Its rows' softmaxes are (0.119203, 0.880797) and (1/2, 1/2),
    # its columns' (0.880797, 0.119203) and (0.982014, 0.017986).
    torch.testing.assert_close(attended_left.flatten(), torch.tensor([0.119203, 0.5]), **CLOSE)
    torch.testing.assert_close(
        attended_right.flatten(), torch.tensor([0.559602, 0.508993]), **CLOSE
    )


def test_the_affinity_is_a_row_softmax_for_left_and_a_column_softmax_for_right() -> None:
    cafm = made_cafm()
    left, right = pair()

    with torch.no_grad():
        outer = torch.einsum("bi,bj->bij", cafm.descriptor(left), cafm.descriptor(right))
        attended_left, attended_right = cafm.exchange(left, right)

    expected_left = torch.einsum("bij,bjhw->bihw", outer.softmax(dim=2), left)
    expected_right = torch.einsum("bij,bihw->bjhw", outer.softmax(dim=1), right)
    torch.testing.assert_close(attended_left, expected_left, **CLOSE)
    torch.testing.assert_close(attended_right, expected_right, **CLOSE)


def test_the_affinity_stays_finite_for_extreme_descriptors() -> None:
    cafm = doubling(made_cafm(channels=2))
    left = torch.tensor([40.0, 1e-3]).view(1, 2, 1, 1)
    right = torch.tensor([40.0, 0.0]).view(1, 2, 1, 1)

    with torch.no_grad():
        attended_left, attended_right = cafm.exchange(left, right)

    # Row 2 of the affinity lies some 6000 below row 1: one common shift would leave it 0/0.
    row = torch.softmax(torch.tensor([2e-3 * 80, 0.0]), dim=0)
    torch.testing.assert_close(attended_left[0, 1, 0, 0], row @ left.flatten(), **CLOSE)
    assert attended_right.isfinite().all()


@pytest.mark.parametrize(("gate", "expected"), [("sigmoid", 1.5), ("softmax", 1 + 1 / 25)])
def test_the_gate_adds_its_share_of_the_features(gate: str, expected: float) -> None:
    cafm = zeroed_gate(made_cafm(gate=gate))
    left, right = pair()

    gated_left, gated_right = cafm(left, right)

    torch.testing.assert_close(gated_left, expected * left)
    torch.testing.assert_close(gated_right, expected * right)


def test_cafm_treats_the_eyes_alike() -> None:
    cafm = made_cafm()
    left, right = pair()

    for one, other in zip(cafm(left, right), reversed(cafm(right, left)), strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


def test_cafm_does_not_mix_the_batch() -> None:
    cafm = made_cafm()
    left, right = pair()

    whole = cafm(left, right)[0]
    alone = torch.cat([cafm(left[i : i + 1], right[i : i + 1])[0] for i in range(3)])

    torch.testing.assert_close(whole, alone, **CLOSE)


def test_each_dense_layer_sees_all_maps_before_it() -> None:
    block = DenseBlock(6, depth=3, growth=4)
    x = torch.randn(2, 6, 5, 5)

    assert [layer[0].in_channels for layer in block.layers] == [6, 10, 14]
    widened = block(x)
    assert widened.shape == (2, 18, 5, 5)
    assert torch.equal(widened[:, :6], x)


@torch.no_grad()
def test_the_folded_bottleneck_takes_the_sum_of_both_pools() -> None:
    bottleneck = made_cafm().bottleneck
    for layer in (bottleneck[0], bottleneck[2]):
        torch.nn.init.normal_(layer.bias)
    pools = torch.randn(3, 6, 1, 2)

    plain = [torch.nn.Sequential(*bottleneck)(pools[..., i : i + 1]) for i in (0, 1)]
    torch.testing.assert_close(bottleneck(pools), (plain[0] + plain[1]).squeeze(3))
    torch.testing.assert_close(bottleneck.folded()(pools).squeeze(3), bottleneck(pools))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
@torch.no_grad()
def test_folded_paths_equal_the_paths(symmetric: bool, mirrored: bool) -> None:
    paths = made_paths(symmetric=symmetric)
    for layer in (*(layer for block in paths.blocks() for layer in block.layers), paths.merge):
        layer[0].bias = torch.nn.Parameter(torch.randn(layer[0].out_channels))
        layer[1] = torch.nn.Identity()  # as folded norms leave both
    x = torch.randn(3, 6, 5, 5)

    folded = FoldedDualPath(paths, mirrored=mirrored)
    expected = paths(x, -x if mirrored else x)

    torch.testing.assert_close(folded(x, torch.full_like(x, torch.nan)), expected, **CLOSE)
    assert expected.std() > 1e-2  # else the comparison shows nothing


@pytest.mark.parametrize("training", [False, True])
def test_symmetric_paths_do_not_know_the_eyes_apart(training: bool) -> None:
    paths = made_paths(symmetric=True).train(training)
    left, right = pair()

    torch.testing.assert_close(paths(left, right), paths(right, left), **CLOSE)


def test_symmetric_paths_take_one_map_twice_at_the_cost_of_one() -> None:
    paths = made_paths(symmetric=True)
    left, _ = pair()

    torch.testing.assert_close(paths(left, left), paths(left, left.clone()), **CLOSE)


def test_each_path_takes_one_sign_of_the_difference() -> None:
    paths = made_paths()
    left, right = pair()

    asymmetry = CCAM(None, paths)(left, right)

    torch.testing.assert_close(asymmetry, paths(left - right, right - left))


def test_the_absolute_difference_has_no_sign() -> None:
    ccam = CCAM(None, made_paths(), absolute=True)
    left, right = pair()

    torch.testing.assert_close(ccam(left, right), ccam(right, left))
    assert not torch.allclose(CCAM(None, made_paths())(left, right), ccam(left, right))


def test_similarity_is_the_cosine_at_each_position() -> None:
    left, right = pair()

    expected = torch.nn.functional.cosine_similarity(left, right, dim=1).unsqueeze(1)
    torch.testing.assert_close(spatial_similarity(left, right), expected, **CLOSE)


def test_similarity_of_nothing_is_zero_and_has_a_gradient() -> None:
    left = torch.zeros(1, 6, 2, 2, requires_grad=True)

    similarity = spatial_similarity(left, torch.ones(1, 6, 2, 2))
    similarity.sum().backward()

    assert (similarity == 0).all()
    assert left.grad is not None
    assert left.grad.isfinite().all()


def test_ciam_adds_its_input_to_the_agreement() -> None:
    paths = made_paths()
    cafm = made_cafm()
    left, right = pair()

    gated_left, gated_right = cafm(left, right)
    agreement = (gated_left + gated_right) * spatial_similarity(gated_left, gated_right)
    expected = paths(agreement, agreement) + left + right

    torch.testing.assert_close(CIAM(cafm, paths)(left, right), expected, **CLOSE)
