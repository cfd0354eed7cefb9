"""A trained model rewritten for export: the same function in as few steps as it takes.

Contract: the model that comes in is left as it is. The copy is for inference only: it computes
what the model computes in evaluation mode, to float32 rounding, under state-dict keys of its own.
Batch norms are folded, and what is constant is computed here and not by an engine every time.
"""

from __future__ import annotations

import copy
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fundus_training.models.cafm import Bottleneck
from fundus_training.models.dmsnet import DMSNet
from fundus_training.models.head import AuxiliaryHead, BilateralHead, FoldedHead
from fundus_training.models.osim import OSIM

__all__ = ["folded_copy"]


def folded_copy(model: DMSNet) -> DMSNet:
    """Returns a copy in evaluation mode without batch norms and without constant steps."""
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(folded.modules()):
        _fold_children(module)
    for module in list(folded.modules()):
        _fold_norms(module)
    assert isinstance(folded.head, BilateralHead)
    folded.head = FoldedHead(folded.head)
    return folded.eval().requires_grad_(False)


def _fold_children(parent: nn.Module) -> None:
    for name, child in list(parent.named_children()):
        if isinstance(child, OSIM | Bottleneck | AuxiliaryHead):
            setattr(parent, name, child.folded())


def _fold_norms(parent: nn.Module) -> None:
    """Folds each norm into the convolution that is registered right before it.

    That is the order of execution in every block of this package; the tests compare the outputs.
    """
    for (before, conv), (after, norm) in pairwise(list(parent.named_children())):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(parent, before, fuse_conv_bn_eval(conv, norm))
            setattr(parent, after, nn.Identity())
