"""The tab that retrains on the corrections, shows what changes, and lets one accept it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import gradio as gr

from clip_app.comparing import Comparison
from clip_app.retraining import Retraining
from clip_app.tabs.words import in_words
from clip_toolkit.errors import ClipToolkitError

_FEW = 20  # names of changed images that are shown


class RetrainTab:
    """A button, what the training says, before and after, and the decision."""

    def __init__(self, retraining: Retraining) -> None:
        """Lay out the components and connect them."""
        self._retraining, self._is_ready = retraining, False
        gr.Markdown("Trains a new head on the training data and the corrections. Nothing changes until you accept it.")
        start = gr.Button("Retrain on the corrections", variant="primary")
        self._comparison = gr.HTML()
        accept = gr.Button("Use the retrained model")  # always: gradio 6.17 at times does not show what was hidden
        accepted = gr.Markdown()
        with gr.Accordion("What the training says", open=False):
            log = gr.Textbox(show_label=False, lines=12, max_lines=12, interactive=False)
        start.click(self._train, None, [log, self._comparison, accepted], concurrency_limit=1, api_visibility="private")
        accept.click(in_words(self._accept), None, accepted, api_visibility="private")

    def _train(self) -> Iterator[list[Any]]:
        self._is_ready = False
        log, same = list[str](), gr.update()
        yield ["", "<p>Training: this takes from seconds to minutes.</p>", ""]
        try:
            for line in self._retraining.train():
                log.append(line)
                yield ["\n".join(log), same, same]
            yield [same, "<p>Comparing the two models.</p>", same]
            compared = comparison_html(self._retraining.compare())
        except (ClipToolkitError, OSError) as error:
            yield ["\n".join(log), f'<p class="problem">{escape(str(error))}</p>', same]
        else:
            self._is_ready = True
            yield [same, compared, same]

    def _accept(self) -> str:
        if not self._is_ready:
            raise ClipToolkitError("there is no retrained model yet: retrain first, and compare")
        previous = self._retraining.accept()
        self._is_ready = False
        return f"The retrained model is shown from now on. The one so far is kept as `{previous.name}`."


def comparison_html(comparisons: Mapping[str, Comparison]) -> str:
    """Return a table of before and after, and the images whose answers turned right or wrong."""
    rows, changes = "", ""
    for judged, (before, after, images, mended, broken) in comparisons.items():
        for name, first in before.items():
            cells = (f"{name}: {images} {judged}", _figure(name, first), _figure(name, after[name]))
            rows += f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for change, names in (("Right now, wrong before", mended), ("Wrong now, right before", broken)):
            more = f" and {len(names) - _FEW} more" * (len(names) > _FEW)
            shown = f"{change}, of the {judged}: {', '.join(names[:_FEW])}{more}"
            changes += f"<p>{escape(shown)}</p>" * bool(names)
    return f"<table><tr><th></th><th>before</th><th>after</th></tr>{rows}</table>{changes}"


def _figure(name: str, value: float) -> str:
    return f"{value:.4g}" if name.startswith("mean absolute error") else f"{value:.1%}"
