"""Text towers at run time: tokens, embeddings, selftest, and what is refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_text_model
from tiny_text_model import CONTEXT, features, ids, spec, tokenizer_json

from clip_toolkit import (
    MissingDependencyError,
    ModelError,
    SpecError,
    TextEncoder,
    TextError,
    TextTowerSpec,
    TextTruncatedWarning,
    Tokenizer,
    load,
    load_text,
    selftest_text,
)
from clip_toolkit.commands.infer import main
from clip_toolkit.spec.tokenizer import TokenizerSpec, check_tokenizer

pytest.importorskip("tokenizers", reason="needs the text extra")

TEXTS = ["red circle", "", "BLUE", "a blue 円"]
LONG = "red " * 30


@pytest.fixture
def text_file(tmp_path: Path) -> Callable[..., Path]:
    """The file of a spec, or with any text in its place."""

    def write(content: TextTowerSpec | str | None = None) -> Path:
        path = tmp_path / "text.onnx"
        text = content.to_json() if isinstance(content, TextTowerSpec) else content
        path.write_bytes(tiny_text_model.model(text))
        return path

    return write


@pytest.fixture
def encoder(text_file: Callable[..., Path]) -> TextEncoder:
    return load_text(text_file(), device="cpu")


def test_embeddings_are_normalised_and_in_order_at_any_batch(encoder: TextEncoder):
    expected = np.stack([features(text) for text in TEXTS])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    for batch in (1, 2, 3, 32):
        found = encoder.encode(TEXTS, batch_size=batch)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_features_are_not_normalised(encoder: TextEncoder):
    outputs = encoder.run(encoder.tokenizer.encode(["red"]))
    np.testing.assert_allclose(outputs.features[0], features("red"), atol=1e-6)


def test_no_texts_have_no_embeddings(encoder: TextEncoder):
    assert encoder.encode([]).shape == (0, 4)
    assert encoder.tokenizer.encode([]).truncated == ()


def test_a_text_beyond_the_context_is_cut_and_named(encoder: TextEncoder):
    with pytest.warns(TextTruncatedWarning, match=rf"1 of 3 .*number 2.*more than {CONTEXT} tokens"):
        found = encoder.encode(["red", "blue", LONG], batch_size=2)
    fits = " ".join(["red"] * (CONTEXT - 2))
    np.testing.assert_allclose(found[2], encoder.encode([fits])[0], atol=1e-6)


def test_tokens(encoder: TextEncoder):
    tokens = encoder.tokenizer.encode(["red circle", "Blue", LONG])
    assert tokens.truncated == (False, False, True)
    assert tokens.input_ids.dtype == tokens.attention_mask.dtype == np.int64
    assert tokens.input_ids.tolist() == [[*ids("red circle"), 0, 0], [*ids("blue"), 0, 0, 0], [2, 4, 4, 4, 4, 3]]
    assert tokens.attention_mask.sum(1).tolist() == [4, 3, 6]


def test_texts_without_a_token_are_one_of_padding():
    unmarked = json.dumps(json.loads(tokenizer_json()) | {"post_processor": None})
    tokens = Tokenizer(TokenizerSpec(unmarked, CONTEXT, pad_id=0)).encode(["", " "])
    assert tokens.input_ids.tolist() == tokens.attention_mask.tolist() == [[0], [0]]
    assert not any(tokens.truncated)


@pytest.mark.parametrize(("side", "row"), [("right", [2, 4, 3, 0, 0, 0]), ("left", [0, 0, 0, 2, 4, 3])])
def test_padding_to_the_context(side: str, row: list[int]):
    rule = TokenizerSpec(tokenizer_json(), CONTEXT, pad_id=0, pad_to_context=True, padding_side=side)
    tokens = Tokenizer(rule).encode(["red"])
    assert tokens.input_ids.tolist() == [row]
    assert tokens.attention_mask.tolist() == [[int(token > 0) for token in row]]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ("red", "a single one"),
        (b"red", "a single one"),
        (["red", None], r"texts\[1\]: expected a str, got NoneType"),
        ([b"red"], r"texts\[0\]: expected a str, got bytes"),
        (["\ud83c"], r"texts\[0\]: is not valid Unicode"),
    ],
)
def test_what_is_no_list_of_texts(encoder: TextEncoder, texts: Any, said: str):
    with pytest.raises(TextError, match=said):
        encoder.encode(texts)


def test_batch_size_below_one(encoder: TextEncoder):
    with pytest.raises(ValueError, match="batch_size"):
        encoder.encode(["red"], batch_size=0)


def test_tokens_that_the_tower_does_not_know(text_file: Callable[..., Path]):
    other = tokenizer_json().replace('"circle": 6', '"circle": 99')
    strange = load_text(text_file(spec(tokenizer=TokenizerSpec(other, CONTEXT, 0))), device="cpu")
    with pytest.raises(ModelError, match="ONNX Runtime failed"):
        strange.encode(["circle"])


def test_each_kind_of_file_names_what_opens_it(text_file: Callable[..., Path], demo: Path):
    with pytest.raises(SpecError, match=r"text\.onnx.*text tower.*load_text"):
        load(text_file())
    with pytest.raises(SpecError, match=r"demo\.onnx.*classifier.*clip_toolkit\.load "):
        load_text(demo)


def test_what_is_written_is_read():
    assert TextTowerSpec.from_json(spec().to_json()) == spec()
    assert TextTowerSpec.from_json(spec(logit_bias=-10.0).to_json()).logit_bias == -10.0


WRONG = {
    "kind": "video",
    "ops": "fast",
    "logit_scale": 0,
    "logit_bias": "none",
    "encoder.feature": "pooled",
    "encoder.dim": 0,
    "tokenizer": None,
    "tokenizer.json": {},
    "tokenizer.context": 1,
    "tokenizer.pad_id": -1,
    "tokenizer.padding_side": "top",
    "golden": [{}],
    "parity": [],
}


@pytest.mark.parametrize(("path", "value"), WRONG.items(), ids=WRONG.keys())
def test_each_wrong_field_is_named(path: str, value: object):
    data = json.loads(spec().to_json())
    *parents, last = path.split(".")
    place = data
    for name in parents:
        place = place[name]
    place[last] = value
    with pytest.raises(SpecError, match=rf"spec\.{path}\b"):
        TextTowerSpec.from_json(json.dumps(data))


def test_a_tokenizer_without_padding_token_is_named():
    with pytest.raises(SpecError, match=r"tokenizer\.pad_id: expected at least 0, got None"):
        check_tokenizer(TokenizerSpec("{}", CONTEXT, pad_id=None), "tokenizer")


@pytest.mark.parametrize("damaged", ["", "{}", "not json", '{"model": {"type": "Oracle"}}'])
def test_a_tokenizer_that_is_none(text_file: Callable[..., Path], damaged: str):
    with pytest.raises(SpecError, match=r"spec\.tokenizer: the tokenizers package cannot read it"):
        load_text(text_file(spec(tokenizer=TokenizerSpec(damaged, CONTEXT, 0))))


REPLACE = {"type": "Replace", "content": "aa"}
DOUBLING = {
    "by letters": {"type": "Sequence", "normalizers": [REPLACE | {"pattern": {"String": "a"}}] * 40},
    "by pattern": {"type": "Sequence", "normalizers": [REPLACE | {"pattern": {"Regex": "."}}] * 40},
    "in front": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "a" * 1000}] * 5},
    "by Unicode": {
        "type": "Sequence",
        "normalizers": [{"type": "NFKD"}, REPLACE | {"content": "\ufdfa", "pattern": {"String": "\u0644"}}] * 9,
    },
}


@pytest.mark.parametrize("normaliser", DOUBLING.values(), ids=DOUBLING.keys())
def test_a_tokenizer_that_makes_terabytes_of_a_word_is_refused(text_file: Callable[..., Path], normaliser: object):
    tokenizer = json.dumps(json.loads(tokenizer_json()) | {"normalizer": normaliser})
    with pytest.raises(SpecError, match="grow 10000 times at most"):
        load_text(text_file(spec(tokenizer=TokenizerSpec(tokenizer, CONTEXT, 0))))


@pytest.mark.parametrize(
    ("token", "normaliser", "complaint"),
    [
        ("a", DOUBLING["by letters"], "grow 10000 times"),
        ("a" * 10_000, {"type": "Prepend", "prepend": "b" * 9000}, "added"),
    ],
)
def test_added_tokens_do_not_grow_while_the_tokenizer_is_built(token: str, normaliser: object, complaint: str):
    added = {"id": 0, "content": token, "normalized": True, "special": False}
    added |= dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    tokenizer = json.dumps(json.loads(tokenizer_json()) | {"normalizer": normaliser, "added_tokens": [added]})
    with pytest.raises(SpecError, match=complaint):
        Tokenizer(TokenizerSpec(tokenizer, CONTEXT, 0))


def test_a_runtime_that_computes_padded_texts_wrongly_is_refused(
    text_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("onnxruntime.__version__", "1.21.0")
    with pytest.raises(MissingDependencyError, match=r"need ONNX Runtime 1\.22 or newer, and 1\.21\.0"):
        load_text(text_file(spec()))


def test_a_graph_that_the_metadata_does_not_speak_of(text_file: Callable[..., Path]):
    wide = replace(spec().encoder, dim=5)
    with pytest.raises(ModelError, match="the graph has"):
        load_text(text_file(spec(encoder=wide)))


def test_without_the_extra_it_is_named(text_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingDependencyError, match=r"clip-toolkit\[text\]"):
        load_text(text_file())


def test_images_do_without_tokenizers():
    code = "import clip_toolkit, sys; clip_toolkit.load(device='cpu'); sys.exit('tokenizers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_selftest_passes(encoder: TextEncoder):
    drifts = selftest_text(encoder)
    assert [drift.output for drift in drifts] == ["tokens", "features", "embedding"]
    assert all(drift.passed for drift in drifts)


def test_the_selftest_notices_other_tokens_and_other_features(text_file: Callable[..., Path]):
    plain, other = spec().golden
    tokens = replace(other, input_ids=(*other.input_ids, 5))
    numbers = replace(other, features=tuple(value + 0.1 for value in other.features))
    for changed, said in [(tokens, {"tokens"}), (numbers, {"features", "embedding"})]:
        found = selftest_text(load_text(text_file(spec(golden=(plain, changed))), device="cpu"))
        assert {drift.output for drift in found if not drift.passed} == said


@pytest.mark.parametrize("golden", [(), (replace(spec().golden[0], features=(1.0,)),)], ids=["none", "short"])
def test_golden_texts_that_cannot_be_replayed(text_file: Callable[..., Path], golden: tuple):
    with pytest.raises(SpecError, match="selftest"):
        selftest_text(load_text(text_file(spec(golden=golden)), device="cpu"))


def test_command_line(text_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]):
    path = str(text_file(spec(logit_bias=-12.5)))
    assert main(["--describe", path]) == 0
    described = capsys.readouterr().out
    assert all(word in described for word in ("somebody/tiny", "at most 6 tokens", "bias -12.5", "2 texts"))
    assert main(["--selftest", path, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"]
    assert main(["--doctor", path]) == 0
    assert "a text tower" in capsys.readouterr().out
    assert main(["picture.png", "--model", path]) == 1
    assert "load_text" in capsys.readouterr().err
