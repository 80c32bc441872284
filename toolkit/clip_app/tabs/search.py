"""The tab that searches an index by image, or by words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from clip_app.answers import problems_html
from clip_app.options import SearchingOptions
from clip_app.shown import ShownModel
from clip_app.tabs.words import in_words
from clip_search import Hit, SearchIndex
from clip_toolkit import load_text
from clip_toolkit.errors import ClipToolkitError, ImageError
from clip_toolkit.images import open_image

_MOST = 100
_SIDE = 400  # pixels of a thumbnail's longer side


class SearchTab:
    """A question, and the images most alike."""

    def __init__(self, shown: ShownModel, options: SearchingOptions) -> None:
        """Open index and text tower once, so that what is wrong is said at the start, and lay out the components.

        Raises:
            SearchIndexError: there is no index, or it is of another encoder.
            ModelError: the text tower cannot be opened.
        """
        self._shown, self._options = shown, options
        self._tower = None if options.text_model is None else load_text(options.text_model)
        with SearchIndex.open(options.index, shown.classifier) as index:
            count = len(index)
        gr.Markdown(f"{count} images are indexed.")
        with gr.Row():
            image = gr.File(label="Images like this one", file_count="single", height=120)
            words = gr.Textbox(label="or by words", visible=self._tower is not None, submit_btn=True)
        number = gr.Slider(1, _MOST, value=12, step=1, label="How many")
        problems = gr.HTML()
        found = gr.Gallery(
            label="Most alike first", columns=4, height="auto", interactive=False, buttons=["fullscreen"]
        )
        outputs = [problems, found]
        image.change(in_words(self._by_image), [image, number], outputs, api_visibility="private")
        words.submit(in_words(self._by_words), [words, number], outputs, api_visibility="private")

    def _by_image(self, file: str | None, number: int) -> list[Any]:
        if file is None:
            return ["", []]
        try:
            with SearchIndex.open(self._options.index, self._shown.classifier) as index:
                return _gallery(index.query(file, int(number)), index.root)
        except ImageError as error:
            raise ClipToolkitError(str(error).replace(file, Path(file).name)) from error

    def _by_words(self, words: str, number: int) -> list[Any]:
        if self._tower is None or not words.strip():
            return ["", []]
        with SearchIndex.open(self._options.index) as index:
            return _gallery(index.query_text(self._tower, words, int(number)), index.root)


def _gallery(hits: list[Hit], root: Path) -> list[Any]:
    problems, pictures = list[str](), list[tuple[Image.Image, str]]()
    for hit in hits:
        try:
            picture = open_image(hit.path)
        except ImageError as error:
            problems.append(f"not shown: {error}")
            continue
        picture.thumbnail((_SIDE, _SIDE))
        pictures.append((picture, f"{hit.score:.3f} · {hit.path.relative_to(root).as_posix()}"))
    return [problems_html(problems), pictures]
