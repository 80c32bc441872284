"""Half precision as the reason of a difference: of the whole computation, or of the weights in the head's file alone.

Its roundings differ from one processor to another, and those of weights are lost: a difference of the size that they
make is explained by them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from clip_export.expect.answers import Answers, Rows
from clip_export.expect.comparing import probabilities
from clip_export.expect.fitting import Fit, Setting, fits
from clip_export.expect.reasons import Reason, precision_reasons, rounding_reasons
from clip_export.expect.variants import AS_EXPORTED, Subject

_FACTOR = 4.0  # a difference may be so much larger than the one that roundings make here


def of_half_precision(answers: Answers, subject: Subject, setting: Setting) -> Iterator[Fit]:
    """Explain answers that are rounded to half precision, or probabilities that may have been."""
    theirs = answers.logits if answers.logits is not None else answers.probabilities
    if theirs is None:
        return
    numbers = torch.from_numpy(theirs)
    for reason in precision_reasons():
        precision = reason.variant.precision
        are_rounded = torch.equal(numbers.to(precision).double(), numbers)
        if are_rounded or (answers.logits is None and precision == torch.float16):
            yield from _plausible(answers, subject, setting, subject.logits(reason.variant), reason)


def of_rounded_weights(answers: Answers, subject: Subject, setting: Setting) -> Iterator[Fit]:
    """Explain answers by weights of which the head's file has half the digits."""
    head = subject.heads[()]
    for reason, precision in rounding_reasons():
        if answers.compared != "labels" and _are_rounded(head, precision):
            other = replace(subject, heads={(): _with_more_digits(head, precision)})
            yield from _plausible(answers, subject, setting, other.logits(AS_EXPORTED), reason)


def _are_rounded(head: nn.Module, precision: torch.dtype) -> bool:
    weights = list(head.parameters())
    return bool(weights) and all(torch.equal(weight.to(precision).to(weight.dtype), weight) for weight in weights)


def _with_more_digits(head: nn.Module, precision: torch.dtype) -> nn.Module:
    """Return a head whose weights are rounded to this one's: such as it may have been."""
    other = copy.deepcopy(head)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in other.parameters():
            lost = torch.rand(weight.shape, generator=random, dtype=weight.dtype) - 0.5
            weight.add_(weight * lost * torch.finfo(precision).eps)
    return other


def _plausible(answers: Answers, subject: Subject, setting: Setting, logits: Rows, reason: Reason) -> Iterator[Fit]:
    """Explain the difference by a reason, if it is of the size that this makes here."""
    exact = subject.logits(AS_EXPORTED)
    (start,) = fits(answers, exact, setting, 0)
    (own,) = fits(_answers(logits, answers, setting), exact, setting, 0)
    if start.left.difference <= _FACTOR * own.left.difference:
        yield Fit((reason,), start.left._replace(difference=0.0, changed=()))


def _answers(logits: Rows, like: Answers, setting: Setting) -> Answers:
    """Answers of the same kind as others."""
    if like.logits is not None:
        return Answers(logits=logits)
    return Answers(probabilities=probabilities(logits, setting.task, setting.temperature))
