"""Texts in, embeddings out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.errors import TextTruncatedWarning
from clip_toolkit.runtime.devices import check_runs_texts
from clip_toolkit.runtime.reopening import remember, reopen
from clip_toolkit.runtime.session import Opening, Session, open_session
from clip_toolkit.spec.model_file import read_text_spec
from clip_toolkit.spec.text_tower import TextTowerSpec
from clip_toolkit.text.tokenization import INPUTS, Tokenizer, Tokens, check_texts


class TextOutputs(NamedTuple):
    """What a text tower returns for a batch, float32 ``[batch, dim]`` each.

    Attributes:
        embedding: the features, L2-normalised.
        features: as they come out of the projection: transformers' ``get_text_features``.
    """

    embedding: NDArray[np.float32]
    features: NDArray[np.float32]


def load_text(model: str | os.PathLike[str], device: str = "auto", threads: int | None = None) -> TextEncoder:
    """Open a file of ``clip-export --text-tower``.

    Args:
        model: path.
        device: as for `clip_toolkit.load`.
        threads: CPU threads; default all cores this process may use.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelError: the file is damaged, foreign, or an image classifier.
        DeviceError: a device asked for by name is not there.
        MissingDependencyError: ONNX Runtime or the ``text`` extra is not installed, or ONNX Runtime is too old.
    """
    path = Path(model)
    spec = read_text_spec(path)
    return TextEncoder(spec, open_session(path, device, threads, spec.ops, needs=spec.onnxruntime))


def _reopened(opening: Opening, digest: str) -> TextEncoder:
    """Undo `TextEncoder.__reduce__`."""
    return TextEncoder(*reopen(opening, digest, read_text_spec))


class TextEncoder:
    """A text tower's file, opened. Safe to share between threads, and picklable: another process opens the file again.

    Attributes:
        spec: what the file says of itself; ``spec.encoder`` names the encoder whose images share the space.
        tokenizer: the tokenizer in the file.
        provider: the ONNX Runtime execution provider that runs it.
        notes: remarks on the device, one line each.
        threads: CPU threads.
    """

    def __init__(self, spec: TextTowerSpec, session: Session) -> None:
        """Wrap an open session; most callers want `load_text`.

        Raises:
            ModelError: the graph is not the one that the metadata declares.
            MissingDependencyError: ONNX Runtime is too old for texts.
        """
        check_runs_texts()
        session.check(INPUTS, dict.fromkeys(TextOutputs._fields, spec.encoder.dim))
        self.spec = spec
        self.tokenizer = Tokenizer(spec.tokenizer)
        self.provider = session.provider
        self.notes = session.notes
        self.threads = session.threads
        self._session = session

    def __reduce__(self) -> tuple[Callable[..., TextEncoder], tuple[object, ...]]:
        """Pickle how the file was opened; unpickling raises `ModelError` where it holds another model by then."""
        return _reopened, remember(self._session, self.spec)

    def __repr__(self) -> str:
        """Show the tower and where it runs."""
        return f"<TextEncoder {self.spec.encoder.id!r} on {self.provider}, threads: {self.threads}>"

    def encode(self, texts: Sequence[str], batch_size: int = 32) -> NDArray[np.float32]:
        """Embed texts, comparable with images by the same encoder's projected feature.

        Texts beyond the context lose their end, with a `TextTruncatedWarning` that names the first.

        Args:
            texts: any text, the empty one included.
            batch_size: texts per run of the network.

        Returns:
            float32 ``[texts, dim]``, of L2 norm 1.

        Raises:
            TextError: ``texts`` is a single text, or one of them is no text.
            ModelError: ONNX Runtime fails.
            ValueError: ``batch_size`` is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        check_texts(texts)
        batches = [self.tokenizer.encode(texts[i : i + batch_size]) for i in range(0, len(texts), batch_size)]
        self._warn([text for tokens in batches for text in tokens.truncated])
        empty = np.empty((0, self.spec.encoder.dim), np.float32)
        return np.concatenate([empty, *(self.run(tokens).embedding for tokens in batches)])

    def run(self, tokens: Tokens) -> TextOutputs:
        """Run the network on a batch of tokens.

        Raises:
            ModelError: ONNX Runtime fails on it, such as for tokens that the tower does not know.
        """
        feeds = {name: getattr(tokens, name) for name in INPUTS}
        return TextOutputs(*self._session.run(TextOutputs._fields, feeds))

    def _warn(self, truncated: Sequence[bool]) -> None:
        if any(truncated):
            warnings.warn(
                f"{sum(truncated)} of {len(truncated)} texts (the first is number {truncated.index(True)}, counted "
                f"from 0) have more than {self.spec.tokenizer.context} tokens, and were cut there.",
                TextTruncatedWarning,
                stacklevel=3,
            )
