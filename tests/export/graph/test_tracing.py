"""The exporter is given whole operators where they are all it needs, and decomposed ones where it needs those."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from clip_export.graph.tracing import trace
from clip_toolkit.errors import EncoderError


class Squared(nn.Module):
    """Writes into a tensor of its own, which the exporter cannot translate as it stands."""

    def forward(self, x: Tensor) -> Tensor:
        """Square what is positive."""
        y = x + 1
        y.relu_()
        y.mul_(y)
        return y


NETWORKS = {
    "whole": lambda: nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 4), nn.SiLU()),
    "written in place": lambda: nn.Sequential(nn.Linear(6, 4), Squared(), nn.ReLU(inplace=True)),
    "not known whole": lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_computes_what_the_module_computes(name: str, monkeypatch: pytest.MonkeyPatch):
    decomposed = []
    run = torch.export.ExportedProgram.run_decompositions
    monkeypatch.setattr(
        torch.export.ExportedProgram,
        "run_decompositions",
        lambda self, table: decomposed.append(name) or run(self, table),
    )
    torch.manual_seed(1)
    network = NETWORKS[name]().eval().requires_grad_(False)
    model = trace(network, {"x": torch.zeros(3, 6)}, ("y",))
    x = torch.randn(5, 6)
    (found,) = ReferenceEvaluator(model).run(None, {"x": x.numpy()})
    np.testing.assert_allclose(found, network(x).numpy(), atol=1e-6)
    assert bool(decomposed) == (name != "whole")
    onnx.checker.check_model(model)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


class Failing(nn.Module):
    """Raises an error of its own."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:  # noqa: ARG002 (the exporter names inputs after arguments)
        """Raise it."""
        raise self.error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("depends on data"), r"\(RuntimeError: depends on data\)\. Use another encoder\."),
        (AssertionError(), r"\(AssertionError\)\. Use another encoder\."),
        (TypeError("ours"), r"\(TypeError: ours\)\. Use another encoder, and report this"),
        (MemoryError(), r"\(MemoryError\)\. There is not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "There is not enough memory"),
    ],
)
def test_what_cannot_be_traced_is_named(error: Exception, said: str):
    with pytest.raises(EncoderError, match=said):
        trace(Failing(error), {"x": torch.zeros(3, 6)}, ("y",))
