"""The licence that a checkpoint's card states: read, carried into head and model file, never guessed."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from clip_export.encoders.checkpoint import Checkpoint
from clip_export.encoders.image import Encoder
from clip_export.encoders.model_card import CARD, ModelCard, save_card
from clip_export.encoders.text import TextEncoder
from clip_export.heads.files import TrainedHead, load_head, save_head
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.references import EncoderReference
from clip_export.heads.tuned_encoder import save_with_encoder
from clip_toolkit.spec.licenses import License

CheckpointOf = Callable[[str], Path]
STATED = "---\nlicense: other\nlicense_name: apple-amlr\nlicense_link: https://x.org/LICENSE\n---\n# Tiny\n"
AMLR = License("other", "apple-amlr", "https://x.org/LICENSE")


@pytest.fixture
def copy(checkpoint: CheckpointOf, tmp_path: Path) -> Path:
    """A checkpoint whose card forbids products."""
    folder = Path(shutil.copytree(checkpoint("clip"), tmp_path / "tiny"))
    (folder / CARD).write_text(STATED)
    return folder


def head_on(encoder: Encoder) -> TrainedHead:
    reference = EncoderReference(encoder.id, encoder.revision, licenses=encoder.checkpoint.licenses)
    return TrainedHead(VLMtoMLP(encoder.dim, 4, 2).eval(), reference, ("a", "b"))


CARDS = {
    "": (),
    "# Tiny\n": (),
    "---\ntags: [clip]\n---\n": (),
    "---\nlicense:\n---\n": (),
    "---\nlicense: mit\n---\n": (License("mit"),),
    "\ufeff---\r\nlicense: mit\r\n---\r\n": (License("mit"),),
    "---\nlicense: [mit, cc-by-nc-4.0]\n---\n": (License("mit"), License("cc-by-nc-4.0")),
    STATED: (AMLR,),
}


@pytest.mark.parametrize(("text", "licenses"), CARDS.items())
def test_card_states_what_it_states(text: str, licenses: tuple[License, ...], tmp_path: Path):
    (tmp_path / CARD).write_bytes(text.encode())
    assert ModelCard.of_folder(tmp_path) == ModelCard(licenses)
    assert ModelCard.of_folder(tmp_path / "none") == ModelCard()


@pytest.mark.parametrize("stated", ["{a: 1}", "3", '""', f"{'x' * 501}", r'"\ud800"', "[[mit]]", "a: b: c"])
def test_card_that_cannot_be_read_counts_as_silent_and_is_named(stated: str, copy: Path):
    (copy / CARD).write_text(f"---\nlicense: {stated}\n---\n")
    encoder = Encoder.from_pretrained(str(copy))
    assert encoder.spec().licenses == ()
    [note] = encoder.notes
    assert note.startswith(str(copy / CARD))
    assert "counts as not stated" in note


def test_card_says_nothing_of_what_an_encoder_is(copy: Path):
    before = Encoder.from_pretrained(str(copy)).spec()
    (copy / CARD).write_text("---\nlicense: mit\n---\n")
    after = Encoder.from_pretrained(str(copy)).spec()
    assert (before.licenses, after.licenses) == ((AMLR,), (License("mit"),))
    assert after.revision == before.revision
    assert after == before


def test_both_towers_name_it(copy: Path):
    assert TextEncoder.from_pretrained(str(copy)).spec().licenses == (AMLR,)


def test_head_without_a_licence_keeps_its_form(checkpoint: CheckpointOf, tmp_path: Path):
    path = tmp_path / "head.safetensors"
    save_head(head_on(Encoder.from_pretrained(str(checkpoint("clip")))), path)
    assert b"licenses" not in path.read_bytes()


def test_head_remembers_the_licence_of_a_card_that_is_gone(copy: Path, tmp_path: Path):
    encoder = Encoder.from_pretrained(str(copy))
    save_head(head_on(encoder), tmp_path / "head.pt")
    head = load_head(tmp_path / "head.pt")
    assert head.encoder is not None
    (copy / CARD).unlink()
    assert head.encoder.licensed(encoder.spec(), encoder.checkpoint.commit).licenses == (AMLR,)
    assert replace(head.encoder, revision="0" * 64).licensed(encoder.spec(), encoder.checkpoint.commit).licenses == ()
    (copy / CARD).write_text("---\nlicense: mit\n---\n")
    assert head.encoder.licensed(encoder.spec(), encoder.checkpoint.commit).licenses == (License("mit"),)


def test_fine_tuned_encoder_keeps_the_licence(copy: Path, tmp_path: Path):
    encoder = Encoder.from_pretrained(str(copy))
    head = save_with_encoder(head_on(encoder), encoder, tmp_path / "head.pt")
    assert head.encoder is not None
    tuned = tmp_path / str(head.encoder.folder)
    assert Checkpoint.find(str(tuned)).licenses == (AMLR,)
    assert "Fine-tuned from tiny" in (tuned / CARD).read_text()


def test_card_of_several_licences_names_each(tmp_path: Path):
    save_card((AMLR, License("mit", base="a/b")), "a/c", tmp_path)
    assert ModelCard.of_folder(tmp_path).licenses == (License("apple-amlr"), License("mit"))


def test_adapter_names_the_licence_of_its_base(copy: Path, tmp_path: Path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    settings = {"base_model_name_or_path": str(copy), "peft_type": "LORA", "r": 4, "lora_alpha": 8}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / CARD).write_text("---\nlicense: mit\n---\n")
    assert Checkpoint.find(str(folder)).licenses == (License("mit"), replace(AMLR, base="tiny"))


def test_bare_file_has_no_card(copy: Path):
    checkpoint = Checkpoint.find(str(copy))
    assert replace(checkpoint, id=str(copy / "model.safetensors")).licenses == ()
