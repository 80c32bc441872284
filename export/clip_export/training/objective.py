"""What a head is to get right, by task: the loss, the score, and the units of a regression."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from clip_export.heads.mlp import VLMtoMLP
from clip_export.training.epochs import Examples
from clip_export.training.options import TrainingOptions
from clip_toolkit.judging.scores import r_squared
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL


@dataclass(frozen=True)
class Objective:
    """Loss and score of a task.

    Attributes:
        task: one of `clip_toolkit.spec.tasks.TASKS`.
        weights: float32 ``[outputs]``, of each label in the loss, or None.
        smoothing: as in `TrainingOptions.label_smoothing`.
        mean: float32 ``[outputs]``, of the training targets of a regression; zeros for other tasks.
        std: likewise their standard deviation; ones for other tasks.
    """

    task: str
    weights: Tensor | None
    smoothing: float
    mean: Tensor
    std: Tensor

    @classmethod
    def fitted(cls, task: str, targets: Tensor, outputs: int, options: TrainingOptions) -> Objective:
        """Fit the objective to training targets: their class weights, and for a regression their scale."""
        balanced = options.class_weights == "balanced" and task != REGRESSION
        mean, std = torch.zeros(outputs), torch.ones(outputs)
        if task == REGRESSION:
            mean, std = targets.mean(0), targets.std(0, correction=0)
            std = torch.where(std > 0, std, torch.ones_like(std))
        weights = _balanced(task, targets, outputs) if balanced else None
        return cls(task, weights, options.label_smoothing, mean, std)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy, binary cross entropy, or squared error of standardised values."""
        weights = None if self.weights is None else self.weights.to(outputs.device)
        if self.task == SINGLE_LABEL:
            return functional.cross_entropy(outputs, targets, weights, label_smoothing=self.smoothing)
        if self.task == REGRESSION:
            return functional.mse_loss(outputs, targets)
        soft = targets * (1 - self.smoothing) + self.smoothing / 2
        return functional.binary_cross_entropy_with_logits(outputs, soft, pos_weight=weights)

    def mass(self, targets: Tensor) -> float:
        """Return what examples weigh in a mean `loss`: their number, or the sum of their weights.

        The loss of a batch is the mean of those of its parts, each by its mass, so that parts give the same gradients.
        """
        if self.task == SINGLE_LABEL and self.weights is not None:
            return self.weights[targets].sum().item()
        return len(targets)

    @torch.no_grad()
    def judge(self, model: nn.Module, examples: Examples, chunk: int, device: str = "cpu") -> tuple[float, float]:
        """Loss and score on examples, ``chunk`` at a time, without dropout, class weights or smoothing."""
        model.eval()
        plain = Objective(self.task, None, 0.0, self.mean, self.std)
        features = examples.features
        starts = range(0, len(features), chunk)
        outputs = torch.cat([model(features[start : start + chunk].to(device)).cpu() for start in starts])
        return plain.loss(outputs, examples.targets).item(), score(outputs, examples.targets, self.task)

    def scaled(self, targets: Tensor) -> Tensor:
        """Targets as the loss sees them: of a regression with mean 0 and deviation 1."""
        return (targets - self.mean) / self.std if self.task == REGRESSION else targets

    @torch.no_grad()
    def rescale(self, head: VLMtoMLP) -> None:
        """Undo `unscale`."""
        if self.task == REGRESSION:
            last = head.last
            last.weight /= self.std[:, None]
            last.bias.copy_((last.bias - self.mean) / self.std)

    @torch.no_grad()
    def unscale(self, head: VLMtoMLP) -> None:
        """Fold the units of a regression into the head's last layer, so that it answers in them."""
        if self.task == REGRESSION:
            last = head.last
            last.weight *= self.std[:, None]
            last.bias.copy_(last.bias * self.std + self.mean)


def score(outputs: Tensor, targets: Tensor, task: str) -> float:
    """Share of right decisions, 0 to 1; for a regression R squared, the mean of all values."""
    if task == SINGLE_LABEL:
        return float((outputs.argmax(1) == targets).float().mean())
    if task == MULTI_LABEL:
        return float(((outputs > 0) == (targets > 0.5)).float().mean())
    return float(r_squared(targets.numpy(), outputs.numpy()).mean())


def _balanced(task: str, targets: Tensor, outputs: int) -> Tensor:
    """Of each class ``n / (classes * count)``, as scikit-learn's "balanced"; of each label negatives over positives."""
    if task == MULTI_LABEL:
        positives = targets.sum(0).clamp(min=1)
        return (len(targets) - positives).clamp(min=1) / positives
    counts = torch.bincount(targets, minlength=outputs).clamp(min=1)
    return len(targets) / (outputs * counts.float())
