"""The tab that classifies images one can look at, and corrects the answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from clip_app.answers import Answer, answer_html, classify, headline, problems_html
from clip_app.corrections import Corrections
from clip_app.shown import ShownModel
from clip_app.tabs.words import in_words
from clip_toolkit.errors import ImageError
from clip_toolkit.explaining.explainer import Explainer
from clip_toolkit.images import open_image
from clip_toolkit.prediction import Prediction
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION

_MOST = 50  # images with a preview; the tab of many images has no limit
_FEW = 12  # labels that are shown side by side; more of them go into a list
_SIDE = 800  # pixels of a preview's longer side


class ClassifyTab:
    """Images and their answers; one of them is selected, and can be corrected."""

    def __init__(self, shown: ShownModel, corrections: Corrections, top_k: int) -> None:
        """Lay out the components and connect them."""
        self._shown, self._corrections, self._top_k = shown, corrections, top_k
        spec = shown.classifier.spec
        with gr.Row():
            with gr.Column():
                self._files = gr.File(label="Images", file_count="multiple", height=150)
                with gr.Accordion("Camera", open=False):
                    self._photo = gr.Image(
                        sources=["webcam"], type="filepath", image_mode=None, show_label=False, height=300
                    )
                self._gallery = gr.Gallery(
                    label="Select an image",
                    columns=3,
                    height=300,
                    interactive=False,
                    buttons=["fullscreen"],
                    format="png",
                    visible=False,
                )
            with gr.Column():
                self._problems = gr.HTML()
                self._answer = gr.HTML("<p>Add images, or take one with the camera.</p>")
                self._map = gr.Image(label="What speaks for the label", interactive=False, visible=False)
                with gr.Column(visible=False) as self._correcting:
                    self._fields = _fields(spec)
                    self._save = gr.Button("Save the correction", variant="primary")
                    self._saved = gr.Markdown()
        self._answers = gr.State([])
        self._selected = gr.State(0)
        self._connect()

    def _connect(self) -> None:
        answered = [self._answers, self._problems, self._gallery, *self._outputs()]
        for source in (self._files, self._photo):
            source.change(in_words(self._classify), [self._files, self._photo], answered, api_visibility="private")
        self._gallery.select(in_words(self._select), self._answers, self._outputs(), api_visibility="private")
        corrected = [self._answers, self._selected, *self._fields]
        self._save.click(in_words(self._correct), corrected, self._saved, api_visibility="private")

    def _outputs(self) -> list[Any]:
        return [self._selected, self._answer, self._map, self._correcting, self._saved, *self._fields]

    def _classify(self, files: list[str] | None, photo: str | None) -> list[Any]:
        named = [*(files or []), *([photo] if photo else [])]
        answers = list(classify(self._shown.classifier, named[:_MOST]))
        problems = [str(result) for _, result in answers if isinstance(result, ImageError)]
        if len(named) > _MOST:
            problems.append(f"{len(named) - _MOST} images were left out: the tab Many images has no limit")
        good = [answer for answer in answers if isinstance(answer.result, Prediction)]
        previews = [(_preview(answer.file), _caption(answer)) for answer in good]
        gallery = gr.update(value=previews, visible=bool(good))
        return [good, problems_html(problems), gallery, *self._shown_answer(good, 0)]

    def _select(self, answers: list[Answer], event: gr.SelectData) -> list[Any]:
        return self._shown_answer(answers, event.index)

    def _shown_answer(self, answers: Sequence[Answer], index: int) -> list[Any]:
        if not answers:
            unset = [gr.update() for _ in self._fields]
            hidden = gr.update(visible=False)
            return [0, "", hidden, hidden, "", *unset]
        file, result = answers[index]
        assert isinstance(result, Prediction)  # errors stand above the gallery
        answer, shown = answer_html(file.name, result, self._top_k), gr.update(visible=True)
        return [index, answer, self._overlay(file, result), shown, "", *_values(result)]

    def _overlay(self, file: Path, result: Prediction) -> Any:
        """Return the map beside the answer, of files that tell one."""
        classifier = self._shown.classifier
        if result.relevance is None or classifier.spec.relevance is None:
            return gr.update(visible=False)
        return gr.update(value=Explainer(classifier).overlay(open_image(file), result), visible=True)

    def _correct(self, answers: list[Answer], index: int, *fields: Any) -> str:
        answer = fields if self._shown.classifier.spec.task == REGRESSION else fields[0]
        chosen = [answer] if isinstance(answer, str) else list(answer or ())
        count = self._corrections.add(answers[index].file, chosen)
        return f"Saved: {count} corrected image{'s' * (count != 1)} in `{self._corrections.manifest}`"


def _fields(spec: ModelSpec) -> list[Any]:
    """Return the components for a right answer."""
    if spec.task == REGRESSION:
        return [gr.Number(label=f"Right value: {name}") for name in spec.labels]
    labels, many = list(spec.labels), spec.task == MULTI_LABEL
    title = "Right labels" if many else "Right label"
    if len(labels) > _FEW:
        return [gr.Dropdown(labels, label=title, multiselect=many)]
    return [gr.CheckboxGroup(labels, label=title) if many else gr.Radio(labels, label=title)]


def _values(prediction: Prediction) -> list[Any]:
    if prediction.task == REGRESSION:
        return list(prediction.values.values())
    return [list(prediction.decisions) if prediction.task == MULTI_LABEL else prediction.label]


def _caption(answer: Answer) -> str:
    assert isinstance(answer.result, Prediction)  # errors stand above the gallery
    return f"{headline(answer.result)} · {answer.file.name}"


def _preview(file: Path) -> Image.Image:
    """Return what the model was given, small enough to send: by the decode rule, whatever the browser can show."""
    image = open_image(file)
    image.thumbnail((_SIDE, _SIDE))
    return image
