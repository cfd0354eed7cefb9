"""How much memory a graph's engine may need, told from the graph alone.

An upper bound for what TensorRT takes: it fuses nodes, so that fewer tensors exist than counted
here, and it shares memory between those that do not live at the same time, as is done here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fundus_export.graph_view import GraphView

__all__ = ["MemoryEstimate", "estimate_memory"]

_BYTES_OF_TYPE = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 16: 2}  # onnx.TensorProto's
_WIDEST = 4


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes.

    Attributes:
        weights: of all constants, as the graph holds them; a plan is about as large.
        activations: the most that live at the same time, at the largest batch.
    """

    weights: int
    activations: int

    def to_dict(self) -> dict[str, int]:
        """As JSON values."""
        return asdict(self)


def estimate_memory(view: GraphView, batch: int) -> MemoryEstimate:
    """Estimate one graph's weights and activations at a batch size."""
    weights = sum(_size(view, tensor.name, batch=1) for tensor in view.model.graph.initializer)
    readers = Counter(name for node in view.nodes for name in node.input)
    readers.update(view.outputs)
    live = {name: _size(view, name, batch) for name in view.inputs}
    peak = 0
    for node in view.nodes:
        live.update({name: _size(view, name, batch) for name in node.output if name})
        peak = max(peak, sum(live.values()))
        for name in node.input:
            readers[name] -= 1
            if readers[name] <= 0:
                live.pop(name, None)
    return MemoryEstimate(weights, peak)


def _size(view: GraphView, name: str, batch: int) -> int:
    """Bytes of a tensor; 0 where its shape is unknown, constants counted once."""
    shape = view.shape(name)
    if shape is None:
        return 0
    rows = batch if None in shape else 1
    return view.elements(name) * rows * _BYTES_OF_TYPE.get(view.element_type(name), _WIDEST)
