"""How operators are to be spelt in ONNX. Attention and SiLU have two spellings.

`STANDARD` is plain PyTorch: it runs eagerly, and its export uses standard ONNX alone. `FUSED` exports single
``com.microsoft`` operators, which ONNX Runtime (also for Node and the web) runs faster; it cannot run eagerly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Operators:
    """One spelling of each operator.

    Attributes:
        name: ``standard`` or ``ort``, as in `clip_toolkit.spec.classifier.ModelSpec.ops`.
        attention: query ``[batch, n, dim]``, key and value ``[batch, m, dim]``, heads, and None or what is added to the
            scores, `FORBIDDEN` where a token must not look, ``[batch or 1, 1, n, m]``; returns ``[batch, n, dim]``.
        silu: ``x * sigmoid(x)``, elementwise.
    """

    name: str
    attention: Callable[[Tensor, Tensor, Tensor, int, Tensor | None], Tensor]
    silu: Activation

    def activation(self, name: str) -> Activation:
        """Return the activation of a name in `ACTIVATIONS`.

        Raises:
            KeyError: there is none of this name.
        """
        return {"silu": self.silu, **_ACTIVATIONS}[name]


def _tanh_gelu(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


_ACTIVATIONS: dict[str, Activation] = {
    "gelu": functional.gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "relu": functional.relu,
}

ACTIVATIONS = ("silu", *_ACTIVATIONS)

FORBIDDEN = -1e4
"""What BERT adds to the scores of tokens not to be seen: their exponential is 0, and half precision can hold it."""


def _attention(query: Tensor, key: Tensor, value: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    def split(x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[1], heads, x.shape[2] // heads).transpose(1, 2)

    scale = (query.shape[2] // heads) ** -0.5
    scores = split(query) * scale @ split(key).transpose(2, 3)
    weights = torch.softmax(scores if bias is None else scores + bias, dim=-1)
    return (weights @ split(value)).transpose(1, 2).reshape(-1, query.shape[1], query.shape[2])


def _fused_attention(query: Tensor, key: Tensor, value: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    # As an additive bias, since not every execution provider knows the operator's own masks.
    inputs = (query, key, value) if bias is None else (query, key, value, None, None, bias)
    return _symbolic("MultiHeadAttention", inputs, query, num_heads=heads)


def _fused_silu(x: Tensor) -> Tensor:
    return _symbolic("QuickGelu", (x,), x, alpha=1.0)  # for which the operator skips its multiplication


def _symbolic(name: str, inputs: tuple[Tensor | None, ...], like: Tensor, **attributes: float | str) -> Tensor:
    return torch.onnx.ops.symbolic(
        f"com.microsoft::{name}", inputs, dict(attributes), dtype=like.dtype, shape=like.shape, version=1
    )


STANDARD = Operators("standard", _attention, functional.silu)
FUSED = Operators("ort", _fused_attention, _fused_silu)
OPERATORS = {operators.name: operators for operators in (FUSED, STANDARD)}
"""By the name that ``clip-export --ops`` takes."""
