"""Residual additions, as TensorRT fuses them.

An engine computes `activation(convolution + identity)` in one INT8 kernel if the convolution is
quantised, nobody but the addition reads what it makes, and the identity comes out of a DQ. So the
identity branch carries the pair, and the convolution's branch none. Which is the identity:

* ResNet's plain block, basic or bottleneck: the block's input. It is the first convolution's input
  too, and both read one shared pair.
* ResNet's block with a downsampling convolution: either branch, for both end in a convolution. The
  one without the pair is fused.
* At an island's shore a conversion stands between convolution and addition; the rule is the same.
* MobileNetV2's linear bottleneck: the block's input, which often is itself what a convolution made,
  one without an activation. That convolution cannot fuse here, since the next one reads it too.
"""

from __future__ import annotations

from typing import NamedTuple

from onnx import NodeProto

from fundus_export.dialect_check.pairs import Origin, origin_of
from fundus_export.dialect_check.view import UntrustedView

__all__ = ["Residual", "residual_of"]


class Residual(NamedTuple):
    """A residual addition.

    Attributes:
        lacks_pair: a quantised convolution could fuse with it, but the other branch is in high
            precision.
        cut: convolutions that a pair of their own keeps from fusing, where none is left that could.
    """

    lacks_pair: bool
    cut: tuple[NodeProto, ...]


def residual_of(view: UntrustedView, node: NodeProto) -> Residual | None:
    """What is to be said of an addition; None where it is no residual one.

    A residual addition adds two computed tensors of one shape, of which a convolution made at
    least one.
    """
    if len(node.input) != 2 or not _is_of_one_shape(view, node):
        return None
    origins = [origin_of(view, _before_cast(view, name)) for name in node.input]
    makers = [view.producer(origin.tensor) for origin in origins]
    if any(view.is_constant(origin.tensor) for origin in origins):
        return None
    if not any(maker is not None and maker.op_type == "Conv" for maker in makers):
        return None
    fusable = [
        # where it is converted, nobody else may read that either
        view.is_read_by_one(name) and _can_fuse(view, origin, maker)
        for name, origin, maker in zip(node.input, origins, makers, strict=True)
    ]
    if any(fusable):
        other = origins[fusable.index(True) - 1]
        return Residual(not other.is_quantised, ())
    cut = [
        maker
        for origin, maker in zip(origins, makers, strict=True)
        if maker is not None and _is_cut(view, origin, maker)
    ]
    return Residual(False, tuple(cut))


def _before_cast(view: UntrustedView, name: str) -> str:
    """What an island's shore converts, or the tensor itself."""
    producer = view.producer(name)
    return producer.input[0] if producer is not None and producer.op_type == "Cast" else name


def _is_of_one_shape(view: UntrustedView, node: NodeProto) -> bool:
    one, other = (view.shape(name) for name in node.input)
    # a batch has no name where shape inference lost it
    return one is not None and other is not None and one[1:] == other[1:] and len(one) == len(other)


def _can_fuse(view: UntrustedView, origin: Origin, maker: NodeProto | None) -> bool:
    if maker is None or maker.op_type != "Conv" or origin.is_quantised:
        return False
    return view.is_read_by_one(origin.tensor) and _is_quantised(view, maker)


def _is_quantised(view: UntrustedView, convolution: NodeProto) -> bool:
    return all(origin_of(view, name).is_quantised for name in convolution.input[:2])


def _is_cut(view: UntrustedView, origin: Origin, maker: NodeProto) -> bool:
    """Whether a pair that serves this addition alone follows the convolution."""
    if maker.op_type != "Conv" or origin.quantize is None or origin.dequantize is None:
        return False
    chain = (origin.tensor, origin.quantize.output[0], origin.dequantize.output[0])
    return all(view.is_read_by_one(name) for name in chain)
