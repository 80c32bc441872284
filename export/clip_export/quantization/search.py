"""Getting to a good int8 file by itself: ways are compared by what they do to the logits of the user's own images."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from clip_export.quantization.equalisation import equalised
from clip_export.quantization.evidence.feeds import Feeds
from clip_export.quantization.layers.convolutions import find_convolutions
from clip_export.quantization.layers.feature import feature_of, shifted
from clip_export.quantization.layers.linears import Linear, find_linears
from clip_export.quantization.layers.patches import PATCH, has_patches, patch_rows
from clip_export.quantization.modes.int8 import Int8Scheme, quantize_int8
from clip_export.quantization.ranges import RANGES, Activation, observe, rounded, run
from clip_export.quantization.targets import Target
from clip_export.quantization.weights import Range, quantized_weight, rounded_together
from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL

ALPHAS = (0.3, 0.5, 0.7, 0.9)
"""Strengths of `clip_export.quantization.equalisation` that are compared, beside none at all."""

DYNAMIC_HANDICAP = 1.5
"""Dynamic ranges must be so much better than static ones to be chosen: they are slower, and since they span a batch
an image's result depends on its neighbours."""

FINE_LAYERS = (2, 4, 8, 16, 1000)
"""How many of the most sensitive layers get 16-bit activations, attempt after attempt, until the gate holds."""

FLOAT_LAYERS = (2, 4, 8, 16)
"""And how many of those, after all of them, are left in float."""

_RANKED = 12  # layers whose effect on the logits is measured, of those with the largest errors of their own
_RANKING_IMAGES = 32

Report = Callable[[str], None]


@dataclass(frozen=True)
class Choice:
    """One way to int8.

    Attributes:
        ranges: a name in `RANGES`, or None for dynamic ones.
        alpha: of the equalisation, or None without.
        together: weights are rounded by `clip_export.quantization.weights.rounded_together`, not each by itself.
        corrected: the mean change of the feature over the calibration images is taken back.
        float_convolutions: those of a traced tower are left in float, as they are with dynamic ranges.
        fine_layers: layers with 16-bit activations.
        float_layers: layers left in float.
    """

    ranges: str | None
    alpha: float | None = None
    together: bool = False
    corrected: bool = False
    float_convolutions: bool = False
    fine_layers: tuple[str, ...] = ()
    float_layers: tuple[str, ...] = ()

    def __str__(self) -> str:
        """For people."""
        parts = [f"static ranges ({self.ranges})" if self.ranges else "dynamic ranges"]
        parts += [f"equalised ({self.alpha:g})"] if self.alpha is not None else []
        parts += ["weights rounded together"] if self.together else []
        parts += ["corrected mean"] if self.corrected else []
        parts += ["convolutions in float"] if self.float_convolutions else []
        parts += [f"{len(self.fine_layers)} layers with 16-bit activations"] if self.fine_layers else []
        parts += [f"{len(self.float_layers)} layers in float"] if self.float_layers else []
        return ", ".join(parts)


@dataclass
class Int8Search:
    """The ways to int8 of one network, compared on calibration images.

    Attributes:
        model: float32, with `clip_export.quantization.layers.linears.with_plain_linears`.
        inputs: calibration examples as the network takes them.
        target: processor.
        ops: ``ort`` or ``standard``.
        task: one of `clip_toolkit.spec.tasks.TASKS`.
        deadline: of `time.monotonic`, after which no further way is tried.
        report: told of every way tried.
        tried: relative error of the logits, by the way's text.
    """

    model: onnx.ModelProto
    inputs: Feeds
    target: Target
    ops: str
    task: str
    deadline: float
    report: Report
    tried: dict[str, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Look at the activations."""
        self._sources = {name: layer.source for name, layer in find_linears(self.model).items()}
        self._convolutions = find_convolutions(self.model)
        tensors = [*self._sources.values()]
        tensors += [name for node in self._convolutions.values() for name in (node.input[0], node.output[0])]
        seen = observe(self.model, self.inputs, tensors)
        self._equalised: dict[float | None, tuple[onnx.ModelProto, dict[str, Activation]]] = {None: (self.model, seen)}
        self._chosen: dict[tuple[str, float | None], dict[str, Range]] = {}
        self._rounded: dict[float | None, Mapping[str, tuple[NDArray[np.int8], NDArray[np.float32]]]] = {}
        self._reference = self._outputs(self.model)

    def best(self) -> Choice:
        """Search the best way in 8 bits alone: ranges, then equalisation, dynamic ranges, rounding, correction."""
        best = self._best_of([Choice(name) for name in RANGES])
        best = self._best_of([best, *(replace(best, alpha=alpha) for alpha in ALPHAS)])
        best = self._best_of([replace(best, ranges=name) for name in RANGES])  # equalised, they look otherwise
        dynamic = replace(best, ranges=None)
        if self._error(dynamic) * DYNAMIC_HANDICAP < self._error(best):
            best = dynamic
        best = self._best_of([best, replace(best, together=True)])
        return self._best_of([best, replace(best, corrected=True)])

    def more_exact(self, choice: Choice) -> list[Choice]:
        """``choice`` with convolutions in float, then more and more sensitive layers in 16 bits, then in float."""
        if self._convolutions and choice.ranges and not choice.float_convolutions:
            plain = replace(choice, float_convolutions=True)
            return [plain, *self.more_exact(plain)]
        ranked = tuple(self._sensitive_layers(choice))
        counts = sorted({min(count, len(ranked)) for count in FINE_LAYERS})
        fine = [replace(choice, fine_layers=ranked[:count]) for count in counts] if choice.ranges else []
        last = fine[-1] if fine else choice
        return [*fine, *(replace(last, float_layers=ranked[:count]) for count in FLOAT_LAYERS if count <= len(ranked))]

    def build(self, choice: Choice) -> onnx.ModelProto:
        """Quantize the network to int8 in the way of ``choice``."""
        quantized = self._uncorrected(choice)
        if not choice.corrected:
            return quantized
        _, features = self._outputs(quantized)
        return shifted(quantized, (self._reference[1] - features).mean(0))

    def _uncorrected(self, choice: Choice) -> onnx.ModelProto:
        model, seen = self._model_for(choice.alpha)
        scheme = Int8Scheme(
            self.target,
            self.ops,
            self._ranges(choice, seen),
            frozenset((*choice.float_layers, *(self._convolutions if choice.float_convolutions else ()))),
            frozenset(choice.fine_layers),
            self._weights(choice) if choice.together else {},
        )
        return quantize_int8(model, scheme)

    def _weights(self, choice: Choice) -> Mapping[str, tuple[NDArray[np.int8], NDArray[np.float32]]]:
        """Round weights together, once for each strength of the equalisation."""
        if choice.alpha not in self._rounded:
            model, seen = self._model_for(choice.alpha)
            weights = {
                name: rounded_together(layer.weight, seen[layer.source].sample, self.target)
                for name, layer in find_linears(model).items()
            }
            self._rounded = {choice.alpha: weights | self._patch_weights()}
        return self._rounded[choice.alpha]

    def _patch_weights(self) -> dict[str, tuple[NDArray[np.int8], NDArray[np.float32]]]:
        image = self.inputs.image
        if image.dtype != np.uint8 or not has_patches(self.model):  # that of normalised pixels stays in float
            return {}
        (weight,) = (item for item in self.model.graph.initializer if item.name == f"{PATCH}.weight")
        kernel = numpy_helper.to_array(weight)  # [width, 3, side, side]
        rows = patch_rows(np.asarray(image[:_RANKING_IMAGES], np.uint8), kernel.shape[-1])
        flat = kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel))
        return {PATCH: rounded_together(flat, rows, self.target)}

    def _model_for(self, alpha: float | None) -> tuple[onnx.ModelProto, dict[str, Activation]]:
        if alpha is not None and alpha not in self._equalised:
            plain = self._equalised[None]
            self._equalised = {None: plain, alpha: equalised(*plain, alpha)}  # each is as large as the model: keep one
        return self._equalised[alpha]

    def _ranges(self, choice: Choice, seen: Mapping[str, Activation]) -> dict[str, Range] | None:
        if choice.ranges is None:
            return None
        key = (choice.ranges, choice.alpha)
        if key not in self._chosen:
            self._chosen[key] = {name: RANGES[choice.ranges](activation) for name, activation in seen.items()}
        ranges = self._chosen[key]
        # Sixteen bits have room for everything.
        whole = {self._sources[name] for name in choice.fine_layers if name in self._sources}
        return ranges | {source: RANGES["min-max"](seen[source]) for source in whole}

    def _best_of(self, choices: list[Choice]) -> Choice:
        return min(choices, key=self._error)

    def _error(self, choice: Choice) -> float:
        """Of the logits, relative to how far they spread; infinite for ways that there was no time to try."""
        text = str(choice)
        if text not in self.tried:
            if self.tried and time.monotonic() > self.deadline:
                return np.inf
            self.tried[text] = self._relative_error(self._outputs(self.build(choice))[0], len(self.inputs))
            self.report(f"{text}: error {self.tried[text]:.2%}")
        return self.tried[text]

    def _relative_error(self, logits: NDArray[np.float32], images: int) -> float:
        reference = self._reference[0][:images]
        if self.task == SINGLE_LABEL:  # a change common to all logits of an image changes no probability
            reference, logits = _centred(reference), _centred(logits)
        spread = np.linalg.norm(reference - reference.mean(0))
        return float(np.linalg.norm(logits - reference) / max(spread, np.finfo(np.float32).tiny))

    def _outputs(self, model: onnx.ModelProto, images: int | None = None) -> tuple[NDArray[np.float32], ...]:
        """Logits, or a regression's values, and features of the calibration images."""
        found, feature = feature_of(model)
        logits = "values" if self.task == REGRESSION else "logits"
        batches = run(found, self.inputs[:images], [logits, feature])
        return tuple(np.concatenate(column) for column in zip(*batches, strict=True))

    def _sensitive_layers(self, choice: Choice) -> list[str]:
        """Layers by what leaving each of them in float gains, the most sensitive first."""
        model, seen = self._model_for(choice.alpha)
        layers = {**find_linears(model)}
        ranges = self._ranges(choice, seen) or {name: (a.low, a.high) for name, a in seen.items()}
        local = {
            name: _own_error(layer, seen[layer.source], ranges[layer.source], self.target)
            for name, layer in layers.items()
        }
        candidates = [*sorted(local, key=local.__getitem__, reverse=True)[:_RANKED]]
        candidates += [PATCH] if has_patches(model) else []
        images = min(_RANKING_IMAGES, len(self.inputs))
        gains: dict[str, float] = {}
        for name in candidates:
            if time.monotonic() > self.deadline:
                break
            exact = replace(choice, corrected=False, float_layers=(name,))
            logits, _ = self._outputs(self.build(exact), images)
            gains[name] = self._relative_error(logits, images)
            self.report(f"{name} in float: error {gains[name]:.2%}")
        rest = [name for name in sorted(local, key=local.__getitem__, reverse=True) if name not in gains]
        return [*sorted(gains, key=gains.__getitem__), *rest]


def _centred(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(logits - logits.mean(1, keepdims=True))


def _own_error(layer: Linear, seen: Activation, range_: Range, target: Target) -> float:
    """Relative squared error of a layer's output when its own operands alone are rounded."""
    rows = seen.sample[:256]
    weight, scale = quantized_weight(layer.weight, target)
    exact = rows @ layer.weight
    error = rounded(rows, *range_) @ (weight * scale) - exact
    return float(np.square(error).sum() / max(np.square(exact - exact.mean(0)).sum(), np.finfo(np.float32).tiny))
