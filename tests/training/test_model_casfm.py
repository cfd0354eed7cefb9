"""CASFM holds to equations 8 to 13."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fundus_runtime.labels import EYES, Eye
from fundus_training.models.casfm import CASFM, CrossAttention
from fundus_training.models.casfm_folded import FoldedCASFM


def made(size: int = 4, **options: object) -> CASFM:
    torch.manual_seed(0)
    casfm = CASFM(6, size, width=16, heads=4, **options)  # type: ignore[arg-type]
    for parameter in casfm.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return casfm


def pair(size: int = 4) -> tuple[Tensor, Tensor]:
    left, right = torch.randn(2, 3, 6, size, size)
    return left, right


def attention_of(casfm: CASFM, asking: Tensor, giving: Tensor) -> Tensor:
    """Equation 11 by torch's own attention: Q from `asking`, K and V from `giving`."""

    def heads(tokens: Tensor, weight: Tensor) -> Tensor:
        return (tokens @ weight).view(*tokens.shape[:2], 4, -1).transpose(1, 2)

    attention = casfm.attention
    attended = F.scaled_dot_product_attention(
        heads(asking, attention.query.weight),
        heads(giving, attention.key.weight),
        heads(giving, attention.value.weight),
    )
    return attended.transpose(1, 2).reshape(asking.shape)


def test_cross_attention_is_scaled_dot_product_attention() -> None:
    casfm = made()
    queries, tokens = torch.randn(2, 3, 5, 16)

    torch.testing.assert_close(
        casfm.attention(queries, tokens), attention_of(casfm, queries, tokens)
    )


def test_attention_allows_different_numbers_of_tokens() -> None:
    attention = CrossAttention(8, 2)

    assert attention(torch.randn(2, 5, 8), torch.randn(2, 9, 8)).shape == (2, 5, 8)


@pytest.mark.parametrize("factor", ["omitted", "literal"])
@pytest.mark.parametrize("embedding", ["per_eye", "spatial"])
def test_casfm_equals_its_equations(factor: str, embedding: str) -> None:
    casfm = made(pool_factor=factor, positional_embedding=embedding)
    left, right = pair()

    def tokens_of(features: Tensor, eye: Eye) -> Tensor:  # equations 8 to 10
        projected = casfm.project(features)
        share = torch.sigmoid(casfm.lambda_(eye))
        mixed = share * F.max_pool2d(projected, 2) + (1 - share) * F.avg_pool2d(projected, 2)
        mixed = mixed / 4 if factor == "literal" else mixed
        return casfm.recalibrate(mixed).flatten(2).transpose(1, 2) + casfm.embedding(eye)

    def residual(attended: Tensor, tokens: Tensor, eye: Eye) -> Tensor:  # equation 12
        alpha, beta = torch.sigmoid(casfm.alpha(eye)), torch.sigmoid(casfm.beta(eye))
        return alpha * attended @ casfm.output.weight + beta * tokens

    tokens_left, tokens_right = tokens_of(left, "left"), tokens_of(right, "right")
    final_left = residual(
        attention_of(casfm, asking=tokens_right, giving=tokens_left), tokens_left, "left"
    )
    final_right = residual(
        attention_of(casfm, asking=tokens_left, giving=tokens_right), tokens_right, "right"
    )
    both = torch.cat([final_left, final_right], dim=2)
    expected = both @ casfm.fuse.weight + casfm.fuse_bias  # equation 13

    assert expected.shape == (3, 4, 16)
    torch.testing.assert_close(casfm(left, right), expected)


@pytest.mark.parametrize("factor", ["omitted", "literal"])
@pytest.mark.parametrize("embedding", ["per_eye", "spatial"])
@pytest.mark.parametrize("symmetric", [False, True])
@torch.no_grad()
def test_folded_casfm_gives_the_classifier_what_the_mean_of_the_tokens_would(
    factor: str, embedding: str, symmetric: bool
) -> None:
    casfm = made(3, pool_factor=factor, positional_embedding=embedding, symmetric=symmetric)
    left, right = pair(3)
    classifier = torch.randn(5, 16)

    folded = FoldedCASFM(casfm, classifier)
    summary = torch.cat(folded(left, right), dim=1).double()
    logits = (summary @ folded.share.T + folded.offset).float()

    expected = casfm(left, right).mean(dim=1) @ classifier.T
    # Logits of some hundreds, since the weights are drawn large.
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("size", "positions"), [(2, 9), (3, 4), (4, 4), (7, 16), (14, 49)])
def test_every_position_of_the_map_reaches_a_token(size: int, positions: int) -> None:
    casfm = made(size)
    features = torch.randn(1, 6, size, size, requires_grad=True)

    tokens = casfm.tokens(features, "left")
    tokens.square().sum().backward()

    assert tokens.shape == (1, positions, 16)
    assert features.grad is not None
    assert (features.grad.abs().sum(dim=1) > 0).all()


def test_padding_is_not_averaged() -> None:
    casfm = made(3)
    with torch.no_grad():
        casfm.lambda_.left.fill_(-100.0)  # the average pool alone
        tokens = casfm.tokens(torch.ones(1, 6, 3, 3), "left")

    torch.testing.assert_close(tokens, tokens[:, :1].expand_as(tokens))


def test_symmetric_fusion_does_not_know_the_eyes_apart() -> None:
    casfm = made(symmetric=True)
    left, right = pair()

    torch.testing.assert_close(casfm(left, right), casfm(right, left), rtol=1e-5, atol=1e-5)


def test_per_eye_fusion_knows_the_eyes_apart() -> None:
    casfm = made()
    left, right = pair()

    assert (casfm(left, right) - casfm(right, left)).abs().max() > 0.1


def test_each_eye_has_its_own_scalars_unless_tied() -> None:
    for eye in EYES:
        assert f"alpha.{eye}" in made().state_dict()
        assert f"alpha.{eye}" not in made(symmetric=True).state_dict()
