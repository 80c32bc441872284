"""The spec of a text tower's file, laid out for people."""

from __future__ import annotations

from collections.abc import Iterator

from clip_toolkit.spec.text_tower import TextTowerSpec


def text_rows(spec: TextTowerSpec) -> Iterator[tuple[str, str]]:
    """Name and text of each line."""
    encoder, tokenizer, parity = spec.encoder, spec.tokenizer, spec.parity
    revision = f" at {encoder.revision}" if encoder.revision else ""
    yield "task", "text embeddings"
    yield "encoder", f"{encoder.id}{revision} ({encoder.family}, {encoder.feature} feature, {encoder.dim} wide)"
    yield "input", f"input_ids, attention_mask: int64 [batch, tokens], at most {tokenizer.context} tokens"
    padded = "always to the context" if tokenizer.pad_to_context else "to the longest text of a batch"
    yield "tokenizer", f"in the file; padded {padded} with token {tokenizer.pad_id} on the {tokenizer.padding_side}"
    bias = "" if spec.logit_bias is None else f", bias {spec.logit_bias:.6g}"
    yield "logits", f"cosine similarity times {spec.logit_scale:.6g}{bias}"
    yield "operators", "standard ONNX" if spec.ops == "standard" else "standard ONNX and com.microsoft"
    if parity is None:
        yield "parity", "not recorded"
    else:
        yield (
            "parity",
            (
                f"against PyTorch on {parity.texts} texts ({parity.truncated} beyond the context) at batch "
                f"{', '.join(map(str, parity.batches))}: tokens equal, features {parity.features:.1e} of "
                f"{parity.feature_scale:.3g}, embedding {parity.embedding:.1e}; tolerance {parity.tolerance:g}"
            ),
        )
    yield "quantization", _quantization(spec)
    yield "golden vectors", f"{len(spec.golden)} texts"
    yield "made with", ", ".join(f"{name} {version}" for name, version in spec.tools.items())
    yield "format", f"version {spec.version}"


def _quantization(spec: TextTowerSpec) -> str:
    receipt = spec.quantization
    if receipt is None:
        return "none, float32"
    return (
        f"{receipt.mode}: cosine similarity with the float file's embeddings {receipt.mean_cosine:.4f} on average, "
        f"at least {receipt.least_cosine:.4f} on {receipt.texts} texts ({receipt.min_cosine:g} was asked for); "
        f"{receipt.size_ratio:.3f} of its size, {receipt.speed_ratio:.2f} x as fast at export"
    )
