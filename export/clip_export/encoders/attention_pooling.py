"""Learnt pooling: one query weighs the patches' tokens, and reads their weighted mean.

A query of zeros weighs all alike, which is the mean. Tokens are compared layer-normalised without weights, so that the
scores do not grow with an encoder's width or depth, and read as they are.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional


def attention_weights(patches: Tensor, query: Tensor, eps: float) -> Tensor:
    """Weigh tokens ``[batch, patches, width]`` by a query ``[width]``: ``[batch, patches, 1]``, which sum to 1.

    The scores are those of scaled dot-product attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762). They
    are spelt without a matrix product, which quantization would round for nothing.
    """
    width = patches.shape[-1]
    compared = functional.layer_norm(patches, (width,), eps=eps)
    scores = (compared * query).sum(-1, keepdim=True) / math.sqrt(width)
    return scores.softmax(1)


def attend(patches: Tensor, query: Tensor, eps: float) -> Tensor:
    """Read tokens ``[batch, patches, width]`` with such weights: ``[batch, width]``."""
    return (attention_weights(patches, query, eps) * patches).sum(1)
