"""What a classifier can be asked: one label, any number of labels, or numbers."""

from __future__ import annotations

SINGLE_LABEL, MULTI_LABEL, REGRESSION = "single-label", "multi-label", "regression"

OUTPUTS = {
    SINGLE_LABEL: ("probabilities", "logits", "embedding"),
    MULTI_LABEL: ("probabilities", "logits", "embedding"),
    REGRESSION: ("values", "embedding"),
}
"""Names of the graph's outputs, by task."""


def output_names(task: str, head: str = "") -> tuple[str, ...]:
    """Name the outputs of a head: those of the task, with ``_head`` behind them but for the embedding, which all share.

    Args:
        task: one of `TASKS`.
        head: name of a further head, of a file with several; empty for the main one.
    """
    return tuple(f"{name}_{head}" if head and name != "embedding" else name for name in OUTPUTS[task])


NOVELTY, RELEVANCE = "novelty", "relevance"
"""Names of further outputs, in files whose spec speaks of them."""

EXPLAIN = "explain"
"""Name of an input that may be left out: of how many images `RELEVANCE` is wanted, int64 ``[1]``, by default of all."""

FILE, OCCLUSION = "file", "occlusion"
WAYS = (FILE, OCCLUSION)
"""Where maps of relevance come from: that output, or runs of any file with a part of the image covered."""

TASKS = tuple(OUTPUTS)
