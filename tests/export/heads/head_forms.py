"""Forms of heads that people save, each as they type it, and how it is exported."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

LABELS = ("ant", "bee", "cow")


@dataclass(frozen=True)
class Form:
    """A form of head.

    Attributes:
        make: builds it for a number of input channels.
        options: of ``clip-export``, beside labels, that say what its state_dict does not.
        labels: of its outputs.
        wrap: what is saved, of its state_dict.
        readable: whether its state_dict can be read at all; otherwise it needs its class.
        told: whether the state_dict says enough for the right reading without options.
        logits: what the notebook takes for logits, of the head's output.
        loaded: what its weights were rounded to before it answers, in a notebook that has loaded what it saved.
    """

    make: Callable[[int], nn.Module]
    options: dict[str, object] = field(default_factory=dict)
    labels: tuple[str, ...] = LABELS
    wrap: Callable[[dict[str, Tensor]], object] = dict
    readable: bool = True
    told: bool = True
    logits: Callable[[Tensor], Tensor] = lambda outputs: outputs
    loaded: torch.dtype = torch.float32


class Course(nn.Module):
    """The course's head."""

    def __init__(self, input_dim: int = 768, hidden_dim: int = 16, output_dim: int = 3) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(input_dim, hidden_dim), nn.ReLU(), nn.Dropout(0.2), nn.Linear(hidden_dim, output_dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class Residual(nn.Module):
    """A residual connection around the hidden layer."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(dim, dim), nn.Linear(dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x + torch.relu(self.hidden(x)))


class Normalising(nn.Module):
    """Divides the feature by its norm first."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(functional.normalize(x, dim=-1))))


class Named(nn.Module):
    """Attributes in an order that is not that of the computation."""

    def __init__(self, dim: int, norm: type[nn.Module] = nn.BatchNorm1d) -> None:
        super().__init__()
        self.fc1, self.fc2, self.bn1 = nn.Linear(dim, 16), nn.Linear(16, 3), norm(16)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.drop(torch.relu(self.bn1(self.fc1(x)))))


class Tempered(nn.Module):
    """A calibrated head, with its temperature as a parameter."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.model, self.temperature = Course(dim), nn.Parameter(torch.tensor([1.7]))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) / self.temperature


class Cosine(nn.Module):
    """CLIP's own classifier: a normalised feature and a learnt logit scale."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc, self.logit_scale = nn.Linear(dim, 3, bias=False), nn.Parameter(torch.tensor(math.log(5)))

    def forward(self, x: Tensor) -> Tensor:
        return self.logit_scale.exp() * self.fc(functional.normalize(x, dim=-1))


class Gated(nn.Module):
    """Two branches, one of which gates the other."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.value, self.gate, self.out = nn.Linear(dim, 16), nn.Linear(dim, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.value(x) * torch.sigmoid(self.gate(x)))


class WithSoftmax(nn.Module):
    """Ends in a softmax."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.fc(x), dim=-1)


class Slow(nn.Module):
    """A learnt slope of its activation."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(dim, 16), nn.PReLU(), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class TwoTasks(nn.Module):
    """Two heads on one feature."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.kind, self.age = nn.Linear(dim, 3), nn.Linear(dim, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.kind(x)


def sequential(*layers: Callable[[int], nn.Module]) -> Callable[[int], nn.Module]:
    return lambda dim: nn.Sequential(*(layer(dim) for layer in layers))


def linear(outputs: int, inputs: int | None = None, **options: bool) -> Callable[[int], nn.Module]:
    return lambda dim: nn.Linear(inputs or dim, outputs, **options)


def plain(kind: type[nn.Module], *arguments: object) -> Callable[[int], nn.Module]:
    return lambda _: kind(*arguments)


def hidden(activation: type[nn.Module]) -> Callable[[int], nn.Module]:
    return sequential(linear(16), plain(activation), linear(3, 16))


def _binary(outputs: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(outputs), outputs], dim=1)


def _bfloat16(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.bfloat16() for name, value in state.items()}


RELU, DROPOUT = plain(nn.ReLU), plain(nn.Dropout, 0.3)
BN, LN = plain(nn.BatchNorm1d, 16), plain(nn.LayerNorm, 16)

FORMS: dict[str, Form] = {
    "course": Form(Course),
    "linear": Form(linear(3)),
    "linear without bias": Form(linear(3, bias=False)),
    "three layers": Form(sequential(linear(16), RELU, linear(12, 16), RELU, linear(3, 12))),
    "four square layers": Form(sequential(linear(16), RELU, linear(16, 16), RELU, linear(16, 16), RELU, linear(3, 16))),
    "dropout first": Form(sequential(DROPOUT, linear(16), RELU, DROPOUT, linear(3, 16), DROPOUT)),
    "no activation between": Form(sequential(linear(16), linear(3, 16))),
    **{
        f"{name} activation": Form(hidden(kind), {"activation": name}, told=False)
        for name, kind in {"gelu": nn.GELU, "tanh": nn.Tanh, "silu": nn.SiLU, "leaky_relu": nn.LeakyReLU}.items()
    },
    "batch norm before relu": Form(sequential(linear(16), BN, RELU, linear(3, 16))),
    "batch norm after relu": Form(sequential(linear(16), RELU, BN, linear(3, 16))),
    "batch norm of the feature": Form(sequential(nn.BatchNorm1d, linear(16), RELU, linear(3, 16))),
    "batch norm of the logits": Form(sequential(linear(16), RELU, linear(3, 16), plain(nn.BatchNorm1d, 3))),
    "batch norm without affine": Form(
        sequential(linear(16), plain(nn.BatchNorm1d, 16, 1e-5, 0.1, False), RELU, linear(3, 16))
    ),
    "batch norm by attributes": Form(Named),
    "layer norm before relu": Form(sequential(linear(16), LN, RELU, linear(3, 16))),
    "layer norm after relu": Form(sequential(linear(16), RELU, LN, linear(3, 16))),
    "layer norm of the feature": Form(sequential(nn.LayerNorm, linear(3))),
    "layer norm by attributes": Form(lambda dim: Named(dim, nn.LayerNorm)),
    "batch norm and layer norm": Form(sequential(nn.LayerNorm, linear(16), BN, RELU, DROPOUT, linear(3, 16))),
    "normalised feature": Form(Normalising, {"feature_norm": "l2"}, told=False),
    "temperature": Form(Tempered),
    "cosine and logit scale": Form(Cosine, {"feature_norm": "l2"}, told=False),
    "single logit": Form(linear(1), labels=LABELS[:2], logits=_binary),
    "single logit, hidden": Form(sequential(linear(16), RELU, linear(1, 16)), labels=LABELS[:2], logits=_binary),
    "multi-label": Form(Course, {"task": "multi-label"}, told=False),
    "multi-label, linear": Form(linear(3), {"task": "multi-label"}, told=False),
    "regression": Form(lambda dim: Course(dim, 16, 2), {"task": "regression"}, labels=LABELS[:2], told=False),
    "float16": Form(Course, wrap=lambda state: {name: value.half() for name, value in state.items()}),
    "bfloat16": Form(Course, wrap=_bfloat16),
    "bfloat16, loaded again": Form(Course, wrap=_bfloat16, loaded=torch.bfloat16),
    "float64": Form(Course, wrap=lambda state: {name: value.double() for name, value in state.items()}),
    "with its classes": Form(
        Course, wrap=lambda state: {"model_state_dict": state, "class_to_idx": {n: i for i, n in enumerate(LABELS)}}
    ),
    "data parallel": Form(Course, wrap=lambda state: {f"module.{name}": value for name, value in state.items()}),
    "residual": Form(Residual, told=False),
    "gated": Form(Gated, readable=False),
    "ends in a softmax": Form(WithSoftmax, logits=torch.log),
    "prelu": Form(Slow, readable=False),
    "two heads": Form(TwoTasks, readable=False),
}
"""By name."""


def trained(form: Form, dim: int) -> nn.Module:
    """The head with weights of trained scale, and statistics that an untrained one would not have."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        module = form.make(dim)
        for part in module.modules():
            if isinstance(part, nn.Linear):
                part.weight.data *= 2
            elif isinstance(part, (nn.BatchNorm1d, nn.LayerNorm)):
                for value in (part.weight, part.bias):
                    if value is not None:
                        value.data += 0.3 * torch.randn_like(value)
            if isinstance(part, nn.BatchNorm1d):
                part.running_mean += torch.randn_like(part.running_mean)
                part.running_var *= torch.rand_like(part.running_var) + 0.5
    return module.to(form.loaded).float().eval()
