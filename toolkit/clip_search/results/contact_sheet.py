"""A page that shows what was found: one HTML file, pictures included, that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from clip_search.results.listing import shown
from clip_toolkit.errors import ImageError
from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.images import open_image

_SIDE = 224  # pixels of a thumbnail's longer side
_QUALITY = 85

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 14px/1.4 system-ui, sans-serif; }}
body {{ margin: 2rem; }}
header {{ display: flex; gap: 1.5rem; align-items: center; margin-bottom: 2rem; }}
h1 {{ font-size: 1.4rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }}
p {{ margin: .2rem 0; opacity: .75; }}
section {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); gap: 1.5rem 1rem; }}
section + section {{ margin-top: 2rem; padding-top: 2rem; border-top: 1px solid #8888; }}
figure {{ margin: 0; }}
figure div {{ height: 14rem; display: flex; align-items: center; justify-content: center; background: #8882; }}
img {{ max-width: 100%; max-height: 100%; }}
figcaption {{ margin-top: .4rem; font-size: .85rem; overflow-wrap: anywhere; }}
.none {{ padding: 4rem 1rem; text-align: center; background: #8882; }}
b {{ font-variant-numeric: tabular-nums; }}
</style>
<header>{picture}<div><h1>{heading}</h1><p>{summary}</p>{notes}</div></header>
{groups}
</html>
"""


_NONE = '<p class="none">No images to show.</p>'
_WORD_END = re.compile(r"[/\\_-]+")


class Picture(NamedTuple):
    """An image on the page.

    Attributes:
        path: of its file.
        score: cosine similarity, with whatever the page says.
    """

    path: Path
    score: float


def write_contact_sheet(
    path: Path, title: str, summary: str, groups: Sequence[Sequence[Picture]], query: Path | None = None
) -> list[str]:
    """Write the page.

    Args:
        path: the file, which appears whole or not at all.
        title: such as what was asked.
        summary: what is to be seen.
        groups: pictures, each group in a grid of its own.
        query: the image that was asked with, if it was one.

    Returns:
        Notes on the images that could not be shown, one each.

    Raises:
        OutputError: the file cannot be written.
    """
    notes: list[str] = []
    page = _PAGE.format(
        title=html.escape(title),
        heading=_breakable(title),
        picture=_image(query) if query is not None else "",
        summary=html.escape(summary),
        groups="\n".join(f"<section>{''.join(_figures(group, notes))}</section>" for group in groups if group) or _NONE,
        notes="".join(f"<p>{html.escape(note)}</p>" for note in notes),
    )
    with written_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    return notes


def _figures(group: Sequence[Picture], notes: list[str]) -> Iterator[str]:
    for number, picture in enumerate(group, 1):
        try:
            image = _image(picture.path)
        except ImageError as error:
            notes.append(f"not shown: {error}")
            continue
        caption = f"{number}. <b>{picture.score:.3f}</b> {_breakable(shown(picture.path))}"
        yield f"<figure><div>{image}</div><figcaption>{caption}</figcaption></figure>\n"


def _breakable(text: str) -> str:
    """HTML of a path or title, which a line may leave between the words of names instead of inside them."""
    return _WORD_END.sub(r"\g<0><wbr>", html.escape(text))


def _image(source: Path) -> str:
    picture = open_image(source)
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="" width="{picture.width}" height="{picture.height}" src="data:image/jpeg;base64,{data}">'
