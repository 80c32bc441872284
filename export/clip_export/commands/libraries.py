"""What the commands do with the libraries of the extra before they use them."""

from __future__ import annotations

from clip_export.extra import require_export_extra


def prepare_libraries() -> None:
    """Check that the extra is installed, and keep its libraries quiet: users asked us a question, not them.

    Raises:
        MissingDependencyError: a package of it is missing.
    """
    require_export_extra()
    import logging
    import warnings

    import transformers

    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in ("torch.onnx", "onnxscript", "onnx_ir", "onnxruntime.quantization"):
        logging.getLogger(name).setLevel(logging.ERROR)
