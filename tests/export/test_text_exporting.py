"""Text towers as ONNX: the network, the tokenizer and the file, each against the unpatched transformers model."""

import functools
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import transformers

from clip_export import text_exporting
from clip_export.commands.export import main as export
from clip_export.commands.export_options import parse_args
from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder, text_features, tokenised, truncated
from clip_export.encoders.tokenizer import tokenizer_spec
from clip_export.graph.text_weights import canonical_text
from clip_export.proof.text_parity import check_text
from clip_export.quantization.text_tower import quantize_text
from clip_export.samples.texts import PROOF_TEXTS
from clip_export.text_exporting import export_text_tower
from clip_toolkit import Tokenizer, load_text
from clip_toolkit.commands.infer import main as infer
from clip_toolkit.errors import EncoderError, ParityError, QuantizationError
from tiny_models import SIZE, TINY_CLIP

Checkpoint = Callable[[str], Path]
Captured = pytest.CaptureFixture[str]
TowerOf = Callable[[str], TextEncoder]

FAMILIES = ("clip", "clip-gelu", "siglip", "siglip2", "blip-retrieval", "tiny-clip")
FILES = (
    ("clip", "ort"),
    ("clip", "standard"),
    ("siglip", "ort"),
    ("siglip2", "standard"),
    ("blip-retrieval", "ort"),
    ("blip-retrieval", "standard"),
)
TEXTS = ["a photo of the red circle", "blue", "", "日本語 ñandú Привет", "a photo of the red circle " * 8]


@pytest.fixture(scope="module")
def tower(checkpoint: Checkpoint) -> TowerOf:
    """The text tower of a tiny checkpoint."""

    @functools.cache
    def make(name: str) -> TextEncoder:
        return TextEncoder.from_pretrained(str(TINY_CLIP if name == "tiny-clip" else checkpoint(name)))

    return make


@pytest.fixture(scope="module")
def text_file(tower: TowerOf, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The exported text tower of a tiny checkpoint."""

    @functools.cache
    def make(name: str, ops: str) -> Path:
        path = tmp_path_factory.mktemp("texts") / "text.onnx"
        export_text_tower(tower(name), path, ops)
        return path

    return make


def tokens(used: TextEncoder, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    found = tokenised(used, texts)
    return found["input_ids"], found.get("attention_mask", torch.ones_like(found["input_ids"]))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.transformers
def test_canonical_transformer_equals_the_transformers_model(tower: TowerOf, name: str):
    expected = text_features(tower(name), TEXTS)
    assert expected.std() > 0.05  # the tiny model says something
    found = canonical_text(tower(name))(*tokens(tower(name), TEXTS))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.transformers
def test_clips_of_both_rules_for_the_end_of_a_text(checkpoint: Checkpoint, tmp_path: Path):
    """Old configurations say 2 whatever their tokenizer does, and then the largest token is the end."""
    folder = Path(shutil.copytree(checkpoint("clip"), tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    old, new = TextEncoder.from_pretrained(str(folder)), TextEncoder.from_pretrained(str(checkpoint("clip")))
    assert {canonical_text(used).config.pooling for used in (old, new)} == {"largest", "end"}
    ids, mask = tokens(new, TEXTS)
    ids[0, 3] = new.model.config.vocab_size - 1  # an end mark in the middle of a text: the first one counts
    for used in (old, new):
        expected = used.projection(used.model(input_ids=ids, attention_mask=mask).pooler_output)
        torch.testing.assert_close(canonical_text(used)(ids, mask), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["clip", "blip-retrieval"])
def test_padding_beyond_the_mask_changes_nothing(tower: TowerOf, name: str):
    ids, mask = tokens(tower(name), ["blue"])
    pad = tower(name).tokenizer.pad_token_id
    padded = torch.nn.functional.pad(ids, (0, 5), value=pad), torch.nn.functional.pad(mask, (0, 5))
    model = canonical_text(tower(name))
    torch.testing.assert_close(model(*padded), model(ids, mask), atol=1e-6, rtol=1e-5)
    if name == "blip-retrieval":  # and it is the mask that does it
        assert (model(padded[0], torch.ones_like(padded[1])) - model(ids, mask)).abs().max() > 1e-3


def test_last_block_computes_one_token_alone(tower: TowerOf):
    model = canonical_text(tower("clip"))
    assert model.blocks[-1](torch.randn(2, 7, 32)).shape == (2, 1, 32)
    assert model.blocks[0](torch.randn(2, 7, 32)).shape == (2, 7, 32)


@pytest.mark.transformers
def test_blips_attention_to_pictures_stays_behind(tower: TowerOf):
    names = canonical_text(tower("blip-retrieval")).state_dict()
    assert any("crossattention" in name for name in tower("blip-retrieval").model.state_dict())
    assert not any("cross" in name for name in names)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.transformers
def test_tokens_are_those_of_transformers(tower: TowerOf, name: str):
    tokenizer = Tokenizer(tokenizer_spec(tower(name)))
    texts = [*TEXTS, *PROOF_TEXTS]
    found, (ids, mask) = tokenizer.encode(texts), tokens(tower(name), texts)
    assert found.input_ids.tolist() == ids.tolist()
    assert name.startswith("siglip") or found.attention_mask.tolist() == mask.tolist()
    cut = [text for text, is_cut in zip(texts, found.truncated, strict=True) if is_cut]
    assert cut == truncated(tower(name), texts)
    assert TEXTS[-1] in cut


@pytest.mark.transformers
def test_a_converted_sentencepiece_gives_the_tokens_of_the_slow_one(tower: TowerOf):
    """Texts at random from what its steps treat differently, more than an export tries."""
    used = tower("siglip")
    assert not used.tokenizer.is_fast
    tokenizer = Tokenizer(tokenizer_spec(used))
    alphabet = [*"aZ0 .,-\t\n▁_'é\u00a0\u3000ﬁ日İ", "\u200b", "e\u0301", "  ", "red", " circle", "🎈"]
    rng = np.random.default_rng(0)
    for _ in range(300):
        text = "".join(rng.choice(alphabet, rng.integers(1, 9)))
        assert tokenizer.encode([text]).input_ids.tolist() == tokenised(used, [text])["input_ids"].tolist(), ascii(text)


class Slow:
    """A tokenizer that is Python code, and none that is known."""

    is_fast = False


@pytest.mark.transformers
def test_a_tokenizer_of_python_code_is_refused_by_name(tower: TowerOf):
    with pytest.raises(EncoderError, match=r"Slow runs in Python alone.*fast tokenizer"):
        tokenizer_spec(replace(tower("clip"), tokenizer=Slow()))


@pytest.mark.transformers
def test_padding_on_the_left_is_refused_where_it_would_move_words(checkpoint: Checkpoint, tmp_path: Path):
    folder = Path(shutil.copytree(checkpoint("blip-retrieval"), tmp_path / "copy"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"padding_side": "left"}))
    with pytest.raises(EncoderError, match=r"pads on the left.*padding_side"):
        tokenizer_spec(TextEncoder.from_pretrained(str(folder)))


@pytest.mark.transformers
def test_a_tokenizer_that_gives_other_tokens_is_refused(tower: TowerOf, monkeypatch: pytest.MonkeyPatch):
    def shouted(used: TextEncoder, texts: list[str]) -> dict[str, torch.Tensor]:
        return tokenised(used, [text.upper() + "!" for text in texts])

    monkeypatch.setattr("clip_export.encoders.tokenizer.tokenised", shouted)
    with pytest.raises(EncoderError, match="makes other tokens"):
        tokenizer_spec(tower("clip"))


@pytest.mark.parametrize(("name", "ops"), FILES)
@pytest.mark.transformers
def test_the_files_answers_are_those_of_transformers(
    text_file: Callable[..., Path], tower: TowerOf, name: str, ops: str
):
    encoder = load_text(text_file(name, ops), device="cpu")
    features = encoder.run(encoder.tokenizer.encode(TEXTS)).features
    expected = text_features(tower(name), TEXTS).numpy()
    np.testing.assert_allclose(features, expected, atol=1e-4)
    with pytest.warns(UserWarning, match="tokens"):  # of the long one
        embeddings = encoder.encode(TEXTS, batch_size=2)
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(embeddings, expected / lengths, atol=1e-5)


@pytest.mark.parametrize(("name", "ops"), FILES)
def test_spec_and_receipt(text_file: Callable[..., Path], tower: TowerOf, name: str, ops: str):
    spec = load_text(text_file(name, ops), device="cpu").spec
    assert spec.ops == ops
    assert (spec.encoder.dim, spec.encoder.feature) == (tower(name).dim, "projected")
    assert spec.logit_scale == pytest.approx(tower(name).logit_scale)
    assert (spec.logit_bias is not None) == name.startswith("siglip")
    assert spec.tokenizer.context == tower(name).context
    assert spec.tokenizer.pad_to_context == name.startswith("siglip")
    assert spec.parity.embedding <= 1e-5
    assert spec.parity.features <= 1e-5 * spec.parity.feature_scale
    assert 2 <= spec.parity.truncated < spec.parity.texts
    with pytest.raises(ParityError, match="embedding"):
        check_text(replace(spec.parity, embedding=float("nan")))


@pytest.mark.parametrize(("name", "ops"), FILES)
def test_interface_and_operators_of_the_graph(text_file: Callable[..., Path], tower: TowerOf, name: str, ops: str):
    model = onnx.load(text_file(name, ops))
    interface = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    dim = tower(name).dim
    assert interface == {
        "input_ids": ["batch", "tokens"],
        "attention_mask": ["batch", "tokens"],
        "embedding": ["batch", dim],
        "features": ["batch", dim],
    }
    kinds = Counter(node.op_type for node in model.graph.node)
    assert (kinds["MultiHeadAttention"], kinds["Softmax"]) == ((2, 0) if ops == "ort" else (0, 2))
    assert {node.domain for node in model.graph.node} == ({"", "com.microsoft"} if ops == "ort" else {""})
    if ops == "standard":
        onnx.checker.check_model(model, full_check=True)


def test_selftest_and_description(text_file: Callable[..., Path], capsys: Captured):
    path = str(text_file("siglip", "ort"))
    assert infer(["--selftest", path]) == 0
    assert "selftest passed" in capsys.readouterr().out
    assert infer(["--describe", path]) == 0
    described = capsys.readouterr().out
    assert all(word in described for word in ("always to the context", "bias", "parity"))


def test_the_file_names_no_folder_of_the_machine_that_made_it(text_file: Callable[..., Path], checkpoint: Checkpoint):
    content = text_file("siglip", "ort").read_bytes()
    assert str(checkpoint("siglip").parent).encode() not in content
    assert str(Path(text_exporting.__file__).parent).encode() not in content


def test_a_file_out_of_tolerance_never_appears(tower: TowerOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    build = text_exporting.text_graph

    def slightly_wrong(*arguments: object) -> onnx.ModelProto:
        model = build(*arguments)
        (bias,) = [item for item in model.graph.initializer if item.name.endswith("blocks.0.fc1.bias")]
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.01), bias.name))
        return model

    monkeypatch.setattr(text_exporting, "text_graph", slightly_wrong)
    with pytest.raises(ParityError, match="No file was written"):
        export_text_tower(tower("clip"), tmp_path / "text.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["clip", "siglip", "siglip2", "blip-retrieval"])
@pytest.mark.transformers
def test_image_features_are_those_of_transformers(checkpoint: Checkpoint, name: str):
    encoder = Encoder.from_pretrained(str(checkpoint(name)), feature="projected")
    values = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(4))
    kind = json.loads((checkpoint(name) / "config.json").read_text())["architectures"][0]
    model = getattr(transformers, kind).from_pretrained(checkpoint(name)).eval()
    with torch.inference_mode():
        if name == "blip-retrieval":  # which has none; as its forward does it
            expected = model.vision_proj(model.vision_model(pixel_values=values).last_hidden_state[:, 0])
        else:
            expected = model.get_image_features(pixel_values=values)
    expected = expected if isinstance(expected, torch.Tensor) else expected.pooler_output
    torch.testing.assert_close(encoder.features(values), expected, atol=1e-5, rtol=1e-5)


def test_command_line(tower: TowerOf, tmp_path: Path, capsys: Captured):
    output = tmp_path / "text.onnx"
    assert export(["--text-tower", "--encoder", str(TINY_CLIP), "-o", str(output)]) == 0
    said = capsys.readouterr().out
    assert f"wrote {output}" in said
    assert "beyond the context) at batch" in said
    expected = torch.nn.functional.normalize(text_features(tower("tiny-clip"), TEXTS[:3]), dim=-1)
    np.testing.assert_allclose(load_text(output).encode(TEXTS[:3]), expected, atol=1e-5)


def test_int8(tmp_path: Path, capsys: Captured):
    output = tmp_path / "small.onnx"
    assert export(["--text-tower", "--encoder", str(TINY_CLIP), "--quantize", "int8", "-o", str(output)]) == 0
    assert "of its size" in capsys.readouterr().out
    encoder = load_text(output, device="cpu")
    receipt = encoder.spec.quantization
    assert receipt.min_cosine == 0.99 <= receipt.least_cosine < receipt.mean_cosine < 1
    assert receipt.size_ratio < 0.35
    kinds = Counter(node.op_type for node in onnx.load(output).graph.node)
    assert kinds["MatMulNBits"] == 9
    assert not kinds["MatMul"]
    red, blue, other = encoder.encode(["a red circle", "a blue circle", "a large red circle"])
    assert red @ other > red @ blue
    assert infer(["--selftest", str(output)]) == 0
    assert infer(["--describe", str(output)]) == 0
    assert "int8: cosine similarity" in capsys.readouterr().out


def test_int8_below_its_bound_is_refused(text_file: Callable[..., Path], tmp_path: Path):
    path = text_file("clip", "ort")
    with pytest.raises(QuantizationError, match=r"has a cosine similarity of 0\.99\d+.*lower --min-agreement"):
        quantize_text(onnx.load(path), path, tmp_path / "scratch.onnx", min_cosine=1.0)


def test_int8_in_standard_operators_is_refused(tower: TowerOf, tmp_path: Path):
    with pytest.raises(QuantizationError, match="Leave out --ops standard"):
        export_text_tower(tower("clip"), tmp_path / "text.onnx", "standard", min_cosine=0.99)
    assert not list(tmp_path.iterdir())


@pytest.mark.transformers
def test_a_checkpoint_without_a_text_tower(checkpoint: Checkpoint, tmp_path: Path, capsys: Captured):
    assert export(["--text-tower", "--encoder", str(checkpoint("blip")), "-o", str(tmp_path / "t.onnx")]) == 1
    assert "BlipForConditionalGeneration has no text tower" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


INT8 = ("--text-tower", "--encoder", "x", "--quantize", "int8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "expected one of --head, --zero-shot, --text-tower and --encoder-only"),
        (["--text-tower"], "--text-tower needs --encoder"),
        (
            ["--text-tower", "--encoder", "x", "--head", "h.pt"],
            "expected one of --head, --zero-shot, --text-tower and --encoder-only, got --head and --text-tower",
        ),
        (["--text-tower", "--encoder", "x", "--quantize", "int4"], "to int8 alone"),
        (["--text-tower", "--encoder", "x", "--quantize", "int8", "--refit"], "--refit does not go with --text-tower"),
        (["--text-tower", "--encoder", "x", "--templates", "a {}"], "--templates needs --zero-shot"),
        (["--text-tower", "--encoder", "x", "--input", "pixels"], "--input does not go with --text-tower"),
        (["--text-tower", "--encoder", "x", "--activation", "relu"], "--activation does not apply to --text-tower"),
        (["--text-tower", "--encoder", "x", "--min-agreement", "0.9"], "--min-agreement needs --quantize"),
        ([*INT8, "--search-minutes", "5"], "--search-minutes does not go with --text-tower"),
        ([*INT8, "--ops", "standard"], "leave out --ops standard"),
    ],
)
def test_arguments_that_do_not_go_together(arguments: list[str], said: str, capsys: Captured):
    with pytest.raises(SystemExit) as stopped:
        parse_args(arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
