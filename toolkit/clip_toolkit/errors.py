"""Every error the toolkit raises on purpose.

    ClipToolkitError
    ├── ImageError (ValueError)
    │   ├── ImageNotFoundError (FileNotFoundError)
    │   └── TransientImageError
    ├── TextError (ValueError)
    ├── ModelError (ValueError)
    │   ├── ModelNotFoundError (FileNotFoundError)
    │   └── SpecError
    ├── SignatureError (ValueError)
    ├── DeviceError (RuntimeError)
    ├── MissingDependencyError (ImportError)
    ├── OutputError (OSError)
    ├── SearchIndexError (RuntimeError)
    ├── DatasetError (ValueError)
    ├── EncoderError (ValueError)
    ├── HeadError (ValueError)
    ├── ExpectError (ValueError)
    ├── ParityError (RuntimeError)
    ├── QuantizationError (RuntimeError)
    └── TuningError (RuntimeError)

Each one also inherits the builtin a caller would catch anyway. A message says where, what was expected, what was
found, and what to do about it.
"""


class ClipToolkitError(Exception):
    """Base of all errors that a command line turns into one line and exit code 1."""


class ImageError(ClipToolkitError, ValueError):
    """An image cannot be decoded, or has a mode, shape or dtype that has no agreed meaning."""


class ImageNotFoundError(ImageError, FileNotFoundError):
    """There is no file at the image's path."""


class TransientImageError(ImageError):
    """The machine, or a limit set for it, kept an image from being decoded: it may succeed at another time."""


class TextError(ClipToolkitError, ValueError):
    """Something else was given where a list of texts is wanted."""


class TextTruncatedWarning(UserWarning):
    """A text has more tokens than the tower takes, and its end was not read."""


class ModelError(ClipToolkitError, ValueError):
    """A file is not a model that this runtime can run."""


class ModelNotFoundError(ModelError, FileNotFoundError):
    """There is no file at the model's path."""


class SpecError(ModelError):
    """The metadata of a model file is missing, malformed, or of a newer major version."""


class SignatureError(ClipToolkitError, ValueError):
    """A signature does not hold, or a key cannot make or check one."""


class DeviceError(ClipToolkitError, RuntimeError):
    """The requested execution provider is absent or did not take the model."""


class MissingDependencyError(ClipToolkitError, ImportError):
    """A package of an optional extra is not installed."""


class OutputError(ClipToolkitError, OSError):
    """An output file cannot be written."""


class SearchIndexError(ClipToolkitError, RuntimeError):
    """A search index is missing, damaged, locked, of another encoder, or cannot answer what was asked."""


class DatasetError(ClipToolkitError, ValueError):
    """A training folder does not hold what training needs."""


class EncoderError(ClipToolkitError, ValueError):
    """An encoder cannot be loaded or is of a kind that is not supported."""


class HeadError(ClipToolkitError, ValueError):
    """A head file cannot be read or does not fit its encoder or labels."""


class ExpectError(ClipToolkitError, ValueError):
    """A file of a notebook's answers cannot be read, contradicts itself, or is of other labels."""


class ParityError(ClipToolkitError, RuntimeError):
    """The exported file does not reproduce the PyTorch model."""


class QuantizationError(ClipToolkitError, RuntimeError):
    """Quantization cannot be done as asked, or the quantized file decides differently."""


class TuningError(ClipToolkitError, RuntimeError):
    """A search for the fastest file found nothing that keeps to its limits."""


def first_line(error: BaseException) -> str:
    """Return what another library's error says, without the trace that some append; its kind where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
