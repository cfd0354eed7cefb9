"""Parameters that exist once an eye, or once for both when the eyes are tied."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fundus_runtime.labels import Eye

__all__ = ["EyeParameter"]


class EyeParameter(nn.Module):
    """A learned tensor an eye; tied eyes share one.

    Its state-dict keys are `left` and `right`, or `both` when tied.
    """

    def __init__(self, *shape: int, tied: bool, std: float = 0.0) -> None:
        super().__init__()
        self.tied = tied
        for name in ("both",) if tied else ("left", "right"):
            self.register_parameter(name, nn.Parameter(torch.randn(*shape) * std))

    def forward(self, eye: Eye) -> Tensor:
        """Returns the tensor of `eye`."""
        return self.get_parameter("both" if self.tied else eye)
