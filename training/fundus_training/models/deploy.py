"""A trained model rewritten for export: the same function with every batch norm folded.

Contract: the model that comes in is left as it is. The copy is for inference only: it computes
what the model computes in evaluation mode, to float32 rounding, under state-dict keys of its own.
"""

from __future__ import annotations

import copy
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fundus_training.models.dmsnet import DMSNet
from fundus_training.models.osim import OSIM

__all__ = ["folded_copy"]


def folded_copy(model: DMSNet) -> DMSNet:
    """Returns a copy in evaluation mode without batch norms, with OSIM as plain convolutions."""
    folded = copy.deepcopy(model).eval()
    for module in list(folded.modules()):
        _fold_osim(module)
    for module in list(folded.modules()):
        _fold_norms(module)
    return folded.requires_grad_(False)


def _fold_osim(parent: nn.Module) -> None:
    for name, child in list(parent.named_children()):
        if isinstance(child, OSIM):
            setattr(parent, name, child.folded().eval())


def _fold_norms(parent: nn.Module) -> None:
    """Folds each norm into the convolution that is registered right before it.

    That is the order of execution in every block of this package; the tests compare the outputs.
    """
    for (before, conv), (after, norm) in pairwise(list(parent.named_children())):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(parent, before, fuse_conv_bn_eval(conv, norm))
            setattr(parent, after, nn.Identity())
