"""Is the graph of a file the one that its metadata declares, and can it run as asked?"""

from __future__ import annotations

from clip_toolkit.errors import ModelError
from clip_toolkit.runtime.devices import CPU, RESIZES, check_runs_texts
from clip_toolkit.runtime.processor import saturates
from clip_toolkit.runtime.session import Session
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.tasks import NOVELTY, RELEVANCE, output_names
from clip_toolkit.text.tokenization import INPUTS as TEXT_INPUTS


def check_graph(spec: ModelSpec, session: Session) -> None:
    """Compare names and sizes of inputs and outputs.

    Raises:
        ModelError: the graph has others than the metadata declares.
        MissingDependencyError: it reads texts, and ONNX Runtime is too old for them.
    """
    if spec.text is not None:
        check_runs_texts()
    source = "image" if spec.input == "image" else "pixel_values"
    sizes: dict[str, int | str] = {**output_sizes(spec)}
    if spec.novelty is not None:
        sizes[NOVELTY] = "batch"
    if spec.relevance is not None:
        sizes[RELEVANCE] = spec.relevance.columns
    session.check([source, *(TEXT_INPUTS if spec.text else ())], sizes)


def output_sizes(spec: ModelSpec) -> dict[str, int]:
    """Return the length of each output's row, by name, in the order of the graph."""
    return {
        name: spec.encoder.dim if name == "embedding" else len(head.labels)
        for head, ending in spec.endings
        for name in output_names(head.task, ending)
    }


def quantization_notes(spec: ModelSpec, provider: str) -> tuple[str, ...]:
    """Say what a user should know of a quantized file on this machine, one line each."""
    receipt = spec.quantization
    if receipt is None or provider != CPU or not saturates(receipt.target):
        return ()
    return (
        (
            f"this int8 file was made for {receipt.target}, and may saturate on this processor, which has no VNNI. "
            "Check with --selftest, or export it again with --target x86."
        ),
    )


def check_resize(resize: str, spec: ModelSpec, provider: str) -> None:
    """Refuse a resize that the file cannot do, or not faithfully.

    Raises:
        ModelError: ``resize`` is unknown, or ``graph`` where the graph has no faithful one.
    """
    if resize not in RESIZES:
        raise ModelError(f"resize: expected one of {', '.join(RESIZES)}, got {resize!r}")
    if resize == "graph" and spec.input != "image":
        raise ModelError("resize: this file takes pixel_values and has no resize in it. Use resize='pillow'.")
    if resize == "graph" and provider != CPU:
        # CUDA: microsoft/onnxruntime#25264; OpenVINO: openvinotoolkit/openvino#35893
        raise ModelError(f"resize: the graph's is not known to be right on {provider}. Use resize='pillow'.")
