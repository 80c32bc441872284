"""Sensitivity and specificity at an operating point."""

from __future__ import annotations

from typing import NamedTuple

from clip_toolkit.judging.answers import Answers
from clip_toolkit.judging.figures import Interval, Samples, figure_text, share_interval


class Rates(NamedTuple):
    """How many images that have a label are found, and how many that have not are spared."""

    label: str
    sensitivity: Interval
    specificity: Interval


def label_rates(answers: Answers, index: int, samples: Samples) -> Rates:
    """Compute the rates of one label."""
    true, predicted = answers.true[:, index], answers.predicted[:, index]
    return Rates(
        answers.labels[index],
        share_interval(predicted, samples, among=true),
        share_interval(~predicted, samples, among=~true),
    )


def rates_text(rates: Rates) -> str:
    """Format sensitivity and specificity with their 95 % intervals; they follow a figure that names them."""
    sensitivity, specificity = (figure_text(rate, interval="") for rate in (rates.sensitivity, rates.specificity))
    return f"sensitivity {sensitivity}, specificity {specificity}"
