"""The report as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.images import ImageSource, open_image
from clip_toolkit.judging.figures import Interval, LabelFigures

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2128; }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #d5d9de; } img { max-width: 100%; }
.score { font-size: 1.9rem; line-height: 1.25; font-weight: 600; margin: 0; } .note, td small { color: #5b636d; }
.warning { background: #fff4d6; border-left: 4px solid #d99a00; padding: .5rem 1rem; }
table { border-collapse: collapse; }
td, th { padding: .3rem .5rem; text-align: right; border-bottom: 1px solid #e4e7eb; }
td:first-child, th:first-child { text-align: left; }
td small { display: block; font-size: .75rem; white-space: nowrap; }
.wide { overflow-x: auto; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; }
.gallery figure { margin: 0; font-size: .85rem; line-height: 1.35; overflow-wrap: anywhere; }
.gallery img { display: block; height: 9rem; max-width: 100%; object-fit: contain; margin-bottom: .3rem; }
figcaption b { font-weight: 600; } figcaption span { display: block; }
svg { margin-right: 1.5rem; max-width: 100%; } svg text { font: 12px system-ui, sans-serif; }
"""


_THUMBNAIL = 200  # pixels of the longer side


class Section(NamedTuple):
    """A part of the page: a heading, what to make of it, and a figure (PNG), a table or a gallery (HTML)."""

    title: str
    note: str
    png: bytes | None = None
    html: str = ""


class Thumbnail(NamedTuple):
    """A small image (JPEG) and perhaps what is drawn of it, the name of its file, and lines of text below."""

    jpegs: Sequence[bytes]
    name: str
    lines: Sequence[str]

    @classmethod
    def of(
        cls,
        image: ImageSource,
        name: str,
        lines: Sequence[str],
        draw: Callable[[Image.Image], Image.Image] | None = None,
    ) -> Thumbnail:
        """Make one of an image.

        Raises:
            ImageError: it cannot be decoded.
        """
        picture = open_image(image)
        pictures = [picture] if draw is None else [picture, draw(picture)]
        return cls([_jpeg(each) for each in pictures], name, lines)


def _jpeg(picture: Image.Image) -> bytes:
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


class Shaded(NamedTuple):
    """A number, shaded by the share that it is, 0 to 1."""

    number: int
    share: float


def render(title: str, score: str, facts: Sequence[str], warnings: Sequence[str], sections: Iterable[Section]) -> str:
    """Render the whole page; texts are escaped here."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<h1>{escape(title)}</h1><p class="score">{escape(score)}</p>',
        *(f'<p class="warning">{escape(text)}</p>' for text in warnings),
        f"<ul>{''.join(f'<li>{escape(fact)}</li>' for fact in facts)}</ul>",
        *map(_section, sections),
        "</html>",
    ]
    return "\n".join(parts)


def write_page(path: Path, page: str) -> None:
    """Write a page, which appears whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    with written_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def figures_table(rows: Sequence[LabelFigures]) -> str:
    """Figures of each label with their intervals, as an HTML table."""
    heads = ["", "images", *rows[0].figures]
    return html_table(heads, ([row.label, f"{row.support}", *row.figures.values()] for row in rows))


def html_table(heads: Sequence[str], rows: Iterable[Sequence[str | Interval | Shaded]]) -> str:
    """Rows below their headings, as an HTML table; texts are escaped here."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def gallery(thumbnails: Iterable[Thumbnail]) -> str:
    """Images side by side with their names, as HTML."""
    return f'<div class="gallery">{"".join(map(_thumbnail, thumbnails))}</div>'


def _thumbnail(thumbnail: Thumbnail) -> str:
    lines = "".join(f"<span>{escape(line)}</span>" for line in thumbnail.lines)
    images = "".join(f'<img alt="" src="{_data("jpeg", jpeg)}">' for jpeg in thumbnail.jpegs)
    name = escape(thumbnail.name).replace("/", "/<wbr>")  # where a long path may break
    return f"<figure>{images}<figcaption><b>{name}</b>{lines}</figcaption></figure>"


def _cell(value: str | Interval | Shaded) -> str:
    if isinstance(value, Shaded):
        return f'<td style="background: rgb(0 114 178 / {0.7 * value.share:.2f})">{value.number}</td>'
    if isinstance(value, str):
        return f"<td>{escape(value)}</td>"
    if math.isnan(value.value):
        return "<td>-</td>"
    return f"<td>{value.value:.3f}<small>{value.low:.3f} to {value.high:.3f}</small></td>"


def _section(section: Section) -> str:
    image = ""
    if section.png is not None:
        image = f'<img alt="{escape(section.title)}" src="{_data("png", section.png)}">'
    return f'<h2>{escape(section.title)}</h2><p class="note">{escape(section.note)}</p>{image}{section.html}'


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
