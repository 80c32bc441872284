"""Signatures of model files by a key of one's own, in the format of OpenSSF Model Signing, v1.0.

The signature of ``model.onnx`` is ``model.onnx.sig``, which the tool ``model_signing`` reads and writes too. Nothing is
looked up in the network.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from clip_toolkit.errors import MissingDependencyError, SignatureError, first_line
from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.files.locate import missing

if TYPE_CHECKING:
    from model_signing import signing

_MAKE_KEY = (
    "Expected a key of the curve P-256, P-384 or P-521, without a password: openssl ecparam -name prime256v1 -genkey "
    "-noout -out key.pem && openssl ec -in key.pem -pubout -out key.pub"
)


def signer(key: Path) -> signing.Config:
    """Read the private key that signs.

    Raises:
        MissingDependencyError: the ``sign`` extra is not installed.
        SignatureError: the file is not such a key.
    """
    _require()
    from model_signing import signing

    try:
        return signing.Config().use_elliptic_key_signer(private_key=key)
    except Exception as error:  # the library lets through whatever it stumbles over
        raise SignatureError(f"{key}: is not a private key to sign with ({first_line(error)}). {_MAKE_KEY}") from error


def sign(model: Path, by: signing.Config) -> Path:
    """Sign a file and return the signature's path.

    Raises:
        OutputError: the signature cannot be written.
    """
    signature = signature_path(model)
    with written_atomically(signature) as temporary:
        by.sign(model.resolve(), temporary)  # the library refuses links
    return signature


def verify(model: Path, key: Path) -> str:
    """Check that the private key that belongs to a public one has signed exactly the bytes of a file, and say so.

    Raises:
        MissingDependencyError: the ``sign`` extra is not installed.
        ModelNotFoundError: there is no such file.
        SignatureError: it has not, or there is no signature, or ``key`` is not a public key.
    """
    _require()
    from model_signing import verifying

    signature = signature_path(model)
    if not model.exists():
        raise missing(model)
    if not signature.is_file():
        raise SignatureError(f"{signature}: there is no such signature of {model}. Sign with clip-export --sign KEY.")
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except Exception as error:
        raise SignatureError(f"{key}: is not a public key to verify with ({first_line(error)}). {_MAKE_KEY}") from error
    try:
        with redirect_stdout(sys.stderr):  # where the library warns
            verifier.verify(model.resolve(), signature)
    except Exception as error:  # whatever it is, the signature does not hold
        reason = "other bytes were signed" if "Hash mismatch" in str(error) else first_line(error)
        raise SignatureError(
            f"{model}: {signature.name} is not a signature of this file by {key} ({reason}). "
            "Do not run the file unless you know why."
        ) from error
    return f"verified: {model} is what the owner of {key} signed"


def signature_path(model: Path) -> Path:
    """Name the file with a model's signature."""
    return model.with_name(f"{model.name}.sig")


def _require() -> None:
    try:
        import model_signing  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("signatures need model-signing: pip install 'clip-toolkit[sign]'") from error
