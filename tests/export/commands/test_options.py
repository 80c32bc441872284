"""The options of ``clip-train`` and ``clip-export``: one definition for the command line and the library."""

import pytest

from clip_export.commands.export_options import ExportCommand
from clip_export.commands.export_options import parse_args as parse_export
from clip_export.commands.train_options import parse_args as parse_train
from clip_export.heads.activations import ACTIVATIONS
from clip_export.heads.mlp import VLMtoMLP
from clip_export.quantization.request import QuantizationRequest
from clip_export.training.options import OPTIMIZERS, SCHEDULES, TrainingOptions
from clip_export.training.updates import make_updates


def test_the_defaults_are_those_of_the_library():
    assert parse_train(["photos", "--encoder", "x"]).training == TrainingOptions()
    assert parse_export(["--head", "h.pt"]).quantization is None
    asked = parse_export(["--head", "h.pt", "--quantize", "int4", "--refit"]).quantization
    assert asked == QuantizationRequest("int4", refit=True)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_that_is_offered_makes_a_head(activation: str):
    assert VLMtoMLP(4, 3, 2, activation).spec.activation == activation


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_optimizer_and_schedule_that_is_offered_is_made(optimizer: str, schedule: str):
    options = TrainingOptions(optimizer=optimizer, schedule=schedule, step_size=1, gamma=0.1)
    updates = make_updates(VLMtoMLP(4, 3, 2).parameters(), options)
    assert type(updates.optimizer).__name__.lower() == optimizer
    updates.optimizer.step()
    updates.end_epoch()
    rate = updates.optimizer.param_groups[0]["lr"]
    assert (rate < options.learning_rate) == (schedule != "none")


def test_where_files_go_by_default():
    assert str(parse_export(["--text-tower", "--encoder", "x"]).output) == "text.onnx"
    assert str(ExportCommand(zero_shot=True, encoder="x", labels=("a", "b")).output) == "model.onnx"
    assert str(parse_train(["photos", "--encoder", "x"]).out) == "head.pt"
    assert str(parse_train(["--encoder", "x", "--explain-preprocessing", "a.png"]).out) == "steps.png"
