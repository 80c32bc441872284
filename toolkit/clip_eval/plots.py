"""Curves as SVG, inside the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from clip_toolkit.judging.answers import Array

# Okabe and Ito's colours, which colour-blind readers can tell apart (https://jfly.uni-koeln.de/color/).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#b8a800")
_SIDE, _LEFT, _BOTTOM = 320, 46, 38  # pixels of the plot, and of its margins
_MOST_POINTS = 400  # of a curve: more cannot be told apart


class Line(NamedTuple):
    """A curve in the unit square.

    Attributes:
        name: in the legend; empty for none.
        x, y: its points, 0 to 1.
        dots: mark each point.
    """

    name: str
    x: Array
    y: Array
    dots: bool = False


def plot(title: str, x_label: str, y_label: str, lines: Sequence[Line], *, diagonal: bool = False) -> str:
    """Draw curves, each axis from 0 to 1, as an SVG element."""
    height = _SIDE + _BOTTOM + 22 + 16 * sum(bool(line.name) for line in lines)
    parts = [
        f'<svg role="img" aria-label="{escape(title)}" width="{_LEFT + _SIDE + 12}" height="{height}">',
        f'<text x="{_LEFT + _SIDE / 2}" y="14" text-anchor="middle" font-weight="600">{escape(title)}</text>',
        *_grid(),
        f'<text x="{_LEFT + _SIDE / 2}" y="{_SIDE + 54}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text transform="translate(12 {22 + _SIDE / 2}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>',
    ]
    if diagonal:
        parts.append(f'<path d="M{_points([0, 1], [0, 1])}" stroke="#8a8f98" stroke-dasharray="3 3"/>')
    for number, line in enumerate(lines):
        parts += _line(line, _COLOURS[number % len(_COLOURS)], _SIDE + 74 + 16 * number)
    return "".join([*parts, "</svg>"])


def _grid() -> Iterator[str]:
    for tick in np.linspace(0, 1, 6):
        x, y = _place(tick, tick)
        yield f'<path d="M{_LEFT} {y:.1f}h{_SIDE}M{x:.1f} 22v{_SIDE}" stroke="#e4e7eb"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.1f}</text>'
        yield f'<text x="{x:.1f}" y="{_SIDE + 38}" text-anchor="middle">{tick:.1f}</text>'


def _line(line: Line, colour: str, y: int) -> Iterator[str]:
    few = np.unique(np.linspace(0, len(line.x) - 1, min(len(line.x), _MOST_POINTS)).round().astype(int))
    yield f'<path d="M{_points(line.x[few], line.y[few])}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for place in map(_place, line.x, line.y) if line.dots else ():
        yield f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="4" fill="{colour}"/>'
    if line.name:
        yield f'<path d="M{_LEFT} {y - 4}h16" stroke="{colour}" stroke-width="2"/>'
        yield f'<text x="{_LEFT + 22}" y="{y}">{escape(line.name)}</text>'


def _points(x: Sequence[float] | Array, y: Sequence[float] | Array) -> str:
    return "L".join("{:.1f} {:.1f}".format(*_place(*pair)) for pair in zip(x, y, strict=True))


def _place(x: float, y: float) -> tuple[float, float]:
    return _LEFT + x * _SIDE, 22 + (1 - y) * _SIDE
