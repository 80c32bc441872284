"""What a search found, as one page: accuracy against time, and a table."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from clip_export.encoders.feature_names import POOLED
from clip_export.training.report.charts import COLOURS, DPI, GREY
from clip_export.tuning.candidates import FLOAT32, INT8, Found, depth_of
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
    "cross-validation. On the line no other file is both faster and more accurate."
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
        Section("Files", "The fastest first; * was chosen, - lies on the line.", html=html_table(HEADS, rows(tuned))),
    ]
    score = f"{chosen}, {time_text(chosen)}; held-out accuracy {figure_text(held_out.score)}"
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
    colours = _colours(tuned.found)
    for item in tuned.found:
        _draw(axes, item, colours[item.encoder], is_chosen=item == tuned.choice.found)
    best = front(tuned.found)
    axes.plot([1e3 * item.seconds for item in best], [100 * item.accuracy.value for item in best], color=GREY, lw=1)
    if limits.max_latency is not None:
        axes.axvline(1e3 * limits.max_latency, color=GREY, linestyle=":", label="--max-latency")
    for name, colour in colours.items():
        axes.scatter([], [], color=colour, label=name)
    axes.scatter([], [], s=45, color=GREY, label=FLOAT32)
    axes.scatter([], [], s=45, facecolors="none", edgecolors=GREY, label=INT8)
    axes.scatter([], [], s=150, marker="*", color=GREY, label="chosen")
    axes.margins(x=0.15)
    axes.set(xscale="log", xlabel="milliseconds for one image", ylabel="accuracy in cross-validation (%)")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", color=GREY, alpha=0.2)
    figure.legend(loc="outside upper center", ncols=6, frameon=False)
    return figure


def _draw(axes: Axes, item: Found, colour: str, *, is_chosen: bool) -> None:
    """Draw a file: its interval, its point, and beside that its feature."""
    value, low, high = (100 * share for share in item.accuracy)
    at, fill = 1e3 * item.seconds, "white" if item.precision == INT8 else colour
    axes.errorbar([at], [value], [[value - low], [high - value]], color=colour, alpha=0.35)
    size, marker = (300, "*") if is_chosen else (45, "o")
    axes.scatter([at], [value], s=size, marker=marker, facecolors=fill, edgecolors=colour, linewidths=1.5, zorder=3)
    shift = (10, -14) if is_chosen else (7, -12)  # below the line, which rises
    axes.annotate(item.feature, (at, value), shift, textcoords="offset points", fontsize=9)


def _depth_figure(scored: Sequence[Found]) -> Figure:
    names = list(_colours(scored))
    figure = Figure(figsize=(max(7, 5 * len(names)), 4), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    poolings = dict(zip(("class", "mean", "class+mean"), COLOURS, strict=False))
    for axes, name in zip(panels, names, strict=True):
        own = [item for item in scored if item.encoder == name]
        for item in own:
            if item.feature == POOLED:
                axes.axhline(100 * item.accuracy.value, color=GREY, linestyle=":", label=POOLED)
        for pooling, colour in poolings.items():
            points = [
                (depth_of(item.feature), 100 * item.accuracy.value)
                for item in own
                if item.feature.startswith(f"{pooling}@")
            ]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=pooling)
        axes.set(title=name, xlabel="after block")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y", color=GREY, alpha=0.2)
    panels[0].set_ylabel("accuracy (%)")
    lines = {line.get_label(): line for axes in panels for line in axes.get_lines()}
    figure.legend(handles=[*lines.values()], loc="outside upper center", ncols=4, frameon=False)
    return figure


def _colours(found: Sequence[Found]) -> dict[str, str]:
    """Return the colour of each encoder."""
    names = dict.fromkeys(item.encoder for item in found)
    return {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
