"""What a classifier can be asked: one label, any number of labels, or numbers."""

from __future__ import annotations

SINGLE_LABEL, MULTI_LABEL, REGRESSION = "single-label", "multi-label", "regression"

OUTPUTS = {
    SINGLE_LABEL: ("probabilities", "logits", "embedding"),
    MULTI_LABEL: ("probabilities", "logits", "embedding"),
    REGRESSION: ("values", "embedding"),
}
"""Names of the graph's outputs, by task."""

TASKS = tuple(OUTPUTS)
