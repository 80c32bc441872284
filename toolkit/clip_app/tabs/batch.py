"""The tab for many images: a table, and the same as CSV."""

from __future__ import annotations

import csv
import os
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr

from clip_app.answers import classify, csv_lines, problems_html
from clip_app.shown import ShownModel
from clip_app.tabs.words import in_words
from clip_toolkit.errors import ImageError


class BatchTab:
    """Files in, ``clip-infer``'s CSV out."""

    def __init__(self, shown: ShownModel) -> None:
        """Lay out the components and connect them."""
        self._shown = shown
        files = gr.File(label="Images", file_count="multiple", height=200)
        summary = gr.HTML()
        download = gr.DownloadButton("Download the table as CSV")
        table = gr.Dataframe(interactive=False, wrap=True, label="Answers")
        files.change(in_words(self._run), files, [summary, download, table], api_visibility="private")

    def _run(self, files: list[str] | None) -> list[Any]:
        if not files:
            return ["", None, None]
        answers = list(classify(self._shown.classifier, files))
        lines = csv_lines(self._shown.classifier, answers)
        headings, *rows = csv.reader(lines, strict=True)
        path = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"])) / "answers.csv"
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")
        failed = sum(isinstance(answer.result, ImageError) for answer in answers)
        problems = [f"{failed} of {len(files)} files cannot be read: the column error says why"] if failed else []
        summary = problems_html(problems) or f"<p>{len(files)} image{'s' * (len(files) != 1)}</p>"
        return [summary, str(path), {"headers": headings, "data": rows}]
