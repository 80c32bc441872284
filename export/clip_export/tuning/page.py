"""What a search found, as one page: accuracy against time, and a table."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from clip_export.training.report.charts import COLOURS, DPI, GREY
from clip_export.tuning.candidates import INT8, Found
from clip_export.tuning.choice import front
from clip_export.tuning.options import Limits
from clip_export.tuning.receipt import size_text, time_text
from clip_export.tuning.tune import Tuned
from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.judging.figures import figure_text
from clip_toolkit.judging.page import Section, html_table, render

HEADS = ("", "encoder", "feature", "precision", "head", "accuracy", "time", "size")
"""Headings of `rows`."""

_PLOT_NOTE = (
    "Each point is a file that was measured on this machine, its bar the 95 % interval of its accuracy in "
    "cross-validation. Filled: float32; hollow: int8. On the line no other file is both faster and more accurate. The "
    "star was chosen."
)
_DEPTH_NOTE = (
    "A linear head in float32, in cross-validation. The dotted line is the encoder's own pooled feature of all blocks."
)


def write_page(path: Path, tuned: Tuned, limits: Limits) -> None:
    """Write the page.

    Raises:
        OutputError: it cannot be written.
    """
    chosen, held_out = tuned.choice.found, tuned.confirmed.held_out
    facts = [
        *(f"{name}: {text}" for name, text in tuned.head.training.items()),
        "the held-out images were looked at once, after the choice",
    ]
    sections = [
        Section("Accuracy against time", _PLOT_NOTE, _png(_front_figure(tuned, limits))),
        Section("Accuracy by depth", _DEPTH_NOTE, _png(_depth_figure(tuned.scored))),
        Section("Files", "The fastest first.", html=html_table(HEADS, rows(tuned))),
    ]
    score = f"{chosen.feature} {chosen.precision}, {time_text(chosen)}; held-out accuracy {figure_text(held_out.score)}"
    page = render("The fastest file that still decides right", score, facts, tuned.notes, sections)
    with written_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def rows(tuned: Tuned) -> Iterator[tuple[str, ...]]:
    """Yield the measured files as cells of text, the fastest first; the chosen one has a star."""
    best = front(tuned.found)
    for item in sorted(tuned.found, key=lambda each: each.seconds):
        mark = "*" if item == tuned.choice.found else "-" if item in best else ""
        accuracy = figure_text(item.accuracy, interval="")
        yield mark, item.encoder, item.feature, item.precision, item.head, accuracy, time_text(item), size_text(item)


def _front_figure(tuned: Tuned, limits: Limits) -> Figure:
    figure = Figure(figsize=(9, 5.5), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(item.encoder for item in tuned.found))
    for item in tuned.found:
        colour = COLOURS[names.index(item.encoder) % len(COLOURS)]
        value, low, high = item.accuracy
        at, fill = 1e3 * item.seconds, "none" if item.precision == INT8 else colour
        axes.errorbar([at], [100 * value], [[100 * (value - low)], [100 * (high - value)]], color=colour, alpha=0.35)
        axes.scatter([at], [100 * value], s=45, facecolors=fill, edgecolors=colour, zorder=3)
        axes.annotate(item.feature, (at, 100 * value), (5, 5), textcoords="offset points", fontsize=8)
    best = front(tuned.found)
    axes.plot([1e3 * item.seconds for item in best], [100 * item.accuracy.value for item in best], color=GREY, lw=1)
    chosen = tuned.choice.found
    axes.scatter([1e3 * chosen.seconds], [100 * chosen.accuracy.value], s=260, marker="*", color="black", zorder=4)
    if limits.max_latency is not None:
        axes.axvline(1e3 * limits.max_latency, color=GREY, linestyle=":", label="--max-latency")
    for name, colour in zip(names, COLOURS, strict=False):
        axes.scatter([], [], color=colour, label=name)
    axes.margins(x=0.15)
    axes.set(xscale="log", xlabel="milliseconds for one image", ylabel="accuracy in cross-validation (%)")
    for which in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        which("{x:g}")
    axes.legend(loc="lower right")
    return figure


def _depth_figure(scored: Sequence[Found]) -> Figure:
    names = list(dict.fromkeys(item.encoder for item in scored))
    figure = Figure(figsize=(5 * len(names), 4), dpi=DPI, layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        lines: dict[str, list[tuple[int, float]]] = {}
        for item in scored:
            pooling, _, depth = item.feature.partition("@")
            if item.encoder == name and depth:
                lines.setdefault(pooling, []).append((int(depth), 100 * item.accuracy.value))
            elif item.encoder == name:
                axes.axhline(100 * item.accuracy.value, color=GREY, linestyle=":", label=item.feature)
        for (pooling, points), colour in zip(lines.items(), COLOURS, strict=False):
            axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=pooling)
        axes.set(title=name, xlabel="after block", ylabel="accuracy (%)")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
