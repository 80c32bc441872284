"""Signatures of model files: `--verify` passes the signed bytes by the signer's key, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from clip_eval.commands.evaluate import main as evaluate
from clip_toolkit.commands.infer import main
from clip_toolkit.errors import MissingDependencyError, ModelNotFoundError, SignatureError
from clip_toolkit.files import signature
from clip_toolkit.files.signature import sign, signer, verify

pytest.importorskip("model_signing")
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa


def write_keys(name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes = b"") -> None:
    """Write ``name.pem`` and ``name.pub``."""
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    Path(f"{name}.pem").write_bytes(key.private_bytes(pem, pkcs8, locked))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    Path(f"{name}.pub").write_bytes(public)


@pytest.fixture
def model(demo: Path) -> Path:
    """A copy of the built-in model, signed by our key."""
    write_keys("ours", ec.generate_private_key(ec.SECP256R1()))
    path = Path(shutil.copy(demo, "model.onnx"))
    assert sign(path, signer(Path("ours.pem"))) == Path("model.onnx.sig")
    return path


def test_only_the_signed_bytes_run(model: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--describe", "--verify", "ours.pub"]) == 0
    said = capsys.readouterr()
    assert said.err == "clip-infer: verified: model.onnx is what the owner of ours.pub signed\n"
    assert main(["--describe", "--verify", "ours.pub", "--quiet"]) == 0
    assert capsys.readouterr() == (said.out, "")
    altered(model)
    assert main(["--describe", "--verify", "ours.pub"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "other bytes were signed" in said.err


def test_a_link_to_the_file_is_the_file(model: Path):
    Path("link.onnx").symlink_to(model)
    shutil.copy("model.onnx.sig", "link.onnx.sig")
    verify(Path("link.onnx"), Path("ours.pub"))


def test_another_key_is_refused(model: Path):
    write_keys("theirs", ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(SignatureError, match=r"theirs\.pub \(Key mismatch"):
        verify(model, Path("theirs.pub"))
    bundle = json.loads(Path("model.onnx.sig").read_text())
    sign(model, signer(Path("theirs.pem")))
    theirs = json.loads(Path("model.onnx.sig").read_text())
    theirs["verificationMaterial"] = bundle["verificationMaterial"]  # which names our key
    Path("model.onnx.sig").write_text(json.dumps(theirs))
    with pytest.raises(SignatureError, match="InvalidSignature"):
        verify(model, Path("ours.pub"))


def test_an_edited_statement_is_refused(model: Path):
    bundle = json.loads(Path("model.onnx.sig").read_text())
    statement = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(statement.replace(b"model.onnx", b"other.onnx")).decode()
    Path("model.onnx.sig").write_text(json.dumps(bundle))
    with pytest.raises(SignatureError, match="InvalidSignature"):
        verify(model, Path("ours.pub"))


@pytest.mark.parametrize("content", ["", "{}", "no JSON", "[]"])
def test_a_signature_that_is_none_is_refused(model: Path, content: str):
    Path("model.onnx.sig").write_text(content)
    with pytest.raises(SignatureError, match=r"model\.onnx\.sig is not a signature of this file"):
        verify(model, Path("ours.pub"))


def test_a_file_without_signature_is_refused(demo: Path, capsys: pytest.CaptureFixture[str]):
    write_keys("ours", ec.generate_private_key(ec.SECP256R1()))
    assert main(["--describe", str(demo), "--verify", "ours.pub"]) == 1
    assert "there is no such signature" in capsys.readouterr().err
    with pytest.raises(ModelNotFoundError):
        verify(Path("gone.onnx"), Path("ours.pub"))


def test_keys_that_cannot_sign_or_verify_are_named(model: Path):
    write_keys("locked", ec.generate_private_key(ec.SECP256R1()), b"secret")
    write_keys("curve", ec.generate_private_key(ec.SECP256K1()))
    write_keys("rsa", rsa.generate_private_key(65537, 2048))
    for name in ("locked.pem", "curve.pem", "rsa.pem", "ours.pub", "missing.pem", "model.onnx"):
        with pytest.raises(SignatureError, match=f"{name}: is not a private key.*openssl ecparam"):
            signer(Path(name))
    for name in ("curve.pub", "ours.pem", "missing.pub", "model.onnx"):
        with pytest.raises(SignatureError, match=f"{name}: is not a public key"):
            verify(model, Path(name))


def test_without_the_extra_it_says_what_to_install(model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'clip-toolkit\[sign\]'"):
        verify(model, Path("ours.pub"))


def altered(model: Path) -> None:
    """Change a byte of the weights."""
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)


def test_a_service_runs_signed_files_alone(model: Path):
    pytest.importorskip("starlette", reason="needs the serve extra")
    from clip_serve import ServeOptions
    from clip_serve.service import Service

    options = ServeOptions((str(model),), verify=Path("ours.pub"))
    service = Service(options)
    assert "signed by the owner of ours.pub" in service.notes()[0]
    before, said = dict(service.models), []
    signed, marks = model.read_bytes(), service.repository.marks()
    altered(model)
    asyncio.run(service.reload(said.append))
    assert re.match("reload failed, the models stay as they are: .*other bytes were signed", said.pop())
    assert service.models == before
    with pytest.raises(SignatureError, match="other bytes were signed"):
        Service(options)
    model.write_bytes(signed)
    assert service.repository.marks()[1:] == marks[1:]
    sign(model, signer(Path("ours.pem")))
    assert service.repository.marks()[1:] != marks[1:]  # a signature that comes later is noticed
    asyncio.run(service.reload(said.append))
    assert said.pop().startswith("reloaded: model ")


def test_clip_eval_reads_no_data_before_each_file_is_verified(model: Path, capsys: pytest.CaptureFixture[str]):
    shutil.copy(model, "other.onnx")
    shutil.copy("model.onnx.sig", "other.onnx.sig")
    altered(Path("other.onnx"))
    for arguments in (["model.onnx", "other.onnx", "data"], ["--drift", "other.onnx", "data"]):
        assert evaluate([*arguments, "--verify", "ours.pub"]) == 1
        assert "other.onnx: other.onnx.sig is not a signature of this file" in capsys.readouterr().err
    assert evaluate(["model.onnx", "data", "--verify", "ours.pub"]) == 1
    assert "verified: model.onnx is what the owner of ours.pub signed\n" in capsys.readouterr().err


def test_clip_scale_starts_with_a_signed_file_alone(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("pyarrow", reason="needs the parquet extra")
    from clip_scale.commands.scale import main as scale

    command = ["run", "photos", "out", "--verify", "ours.pub"]
    altered(model)
    assert scale([*command, "--model", "model.onnx"]) == 1
    assert "other bytes were signed" in capsys.readouterr().err
    assert not Path("out").exists()
    with pytest.raises(SystemExit, match="2"):
        scale([*command, "--model", "s3://bucket/model.onnx"])
    assert "--verify: goes with a model file of this machine" in capsys.readouterr().err
    monkeypatch.setattr(signature, "verify", lambda path, _: altered(path) or "verified")  # replaced once it was read
    assert scale([*command, "--model", "model.onnx"]) == 1
    assert "is another file here" in capsys.readouterr().err
