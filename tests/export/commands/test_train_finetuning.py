"""``clip-train --unfreeze`` as its users run it: to the runtime, through breaks, and bad input."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
import transformers
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

from clip_export.commands import train_hidden_states as hidden_stage
from clip_export.commands.train_options import parse_args
from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder
from clip_export.heads.files import TrainedHead, load_head, save_head
from clip_export.heads.tuned_encoder import earlier_encoders, referenced_encoder, save_with_encoder
from clip_export.training.finetuning.halves import LowerHalf, UpperHalf
from clip_export.training.run import Run
from clip_toolkit.errors import HeadError, OutputError
from clip_toolkit.spec.model_file import read_spec
from commands_in_process import classified, failed, run, train
from tiny_models import TINY_CLIP

UNFREEZE = ("--unfreeze", 2, "--encoder-lr", "1e-3", "--encoder-epochs", 3, "--epochs", 15, "--batch-size", 16)


@pytest.fixture(scope="module")
def crosses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of crosses and of the same ones turned by an eighth, which tiny-clip has never been told apart."""
    folder = tmp_path_factory.mktemp("crosses")
    rng = np.random.default_rng(9)
    for number in range(64):
        label = ("straight", "turned")[number % 2]
        image = Image.new("RGB", (80, 80), tuple(rng.integers(150, 250, 3).tolist()))
        draw = ImageDraw.Draw(image)
        colour = tuple(rng.integers(0, 100, 3).tolist())
        x, y, r = rng.integers(30, 50), rng.integers(30, 50), rng.integers(14, 26)
        for dx, dy in ((r, r), (r, -r)) if number % 2 else ((r, 0), (0, r)):
            draw.line((x - dx, y - dy, x + dx, y + dy), fill=colour, width=6)
        (folder / label).mkdir(exist_ok=True)
        image.save(folder / label / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def tuned(crosses: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which an encoder was fine-tuned."""
    folder = tmp_path_factory.mktemp("tuned")
    done = train(crosses, *UNFREEZE, "--test-fraction", 0.25, "--report", "report", cwd=folder)
    (folder / "said").write_text(done.stdout, encoding="utf-8")
    return folder


def encoder_of(folder: Path) -> Path:
    """The folder of the encoder that was fine-tuned with the ``head.pt`` in another folder."""
    return folder / load_head(folder / "head.pt").encoder.folder


@pytest.mark.transformers
def test_from_folder_to_runtime(crosses: Path, tuned: Path):
    said = (tuned / "said").read_text(encoding="utf-8")
    assert "hidden states below the last 2 of 4 blocks: 64 computed, 0 from the cache" in said
    assert "fine-tuned 2 of 4 blocks, epoch " in said
    folder = encoder_of(tuned)
    assert f"and its encoder, {folder.name}" in said
    assert {path.name for path in tuned.iterdir()} == {folder.name, "head.pt", "report", "said"}
    records = classified(tuned, *sorted(crosses.rglob("*.png")))
    right = [item["label"] == Path(item["image"]).parent.name for item in records]
    head = load_head(tuned / "head.pt")
    assert np.mean(right) == pytest.approx(float(head.training["train accuracy"].rstrip("%")) / 100, abs=0.2)
    spec = read_spec(tuned / "model.onnx")
    assert (spec.encoder.id, spec.encoder.revision) == (folder.name, head.encoder.sha256)
    assert TextEncoder.from_pretrained(str(folder)).revision == spec.encoder.revision
    assert (spec.training["unfrozen blocks"], spec.training["encoder before fine-tuning"]) == (2, "tiny-clip")


def test_the_quantized_file_decides_the_same(tuned: Path):
    done = run("clip-export", "--head", "head.pt", "-o", "small.onnx", "--quantize", "int8", cwd=tuned)
    assert done.returncode == 0, done.stderr
    assert read_spec(tuned / "small.onnx").quantization.agreement >= 0.99


@pytest.mark.transformers
def test_the_saved_encoder_is_a_whole_checkpoint(tuned: Path):
    model = transformers.CLIPModel.from_pretrained(encoder_of(tuned))
    before = transformers.CLIPModel.from_pretrained(TINY_CLIP)
    for name, tensor in model.state_dict().items():
        upper = name.startswith(("vision_model.encoder.layers.2", "vision_model.encoder.layers.3"))
        upper = upper or name.startswith("vision_model.post_layernorm")
        assert torch.equal(tensor, before.state_dict()[name]) != upper, name
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder_of(tuned))
    assert tokenizer("a red circle")["input_ids"]
    assert Encoder.from_pretrained(str(encoder_of(tuned)), feature="projected").dim == 64


@pytest.mark.parametrize("name", ["clip", "siglip", "siglip2", "blip", "blip-retrieval", "clip-projected"])
@pytest.mark.transformers
def test_every_family_is_saved_and_read(
    checkpoint: Callable[[str], Path], head_for: Callable[[Encoder], TrainedHead], tmp_path: Path, name: str
):
    name, feature = (name.removesuffix("-projected"), "projected" if name.endswith("projected") else "pooled")
    encoder = Encoder.from_pretrained(str(checkpoint(name)), feature=feature)
    values = torch.randn(2, 3, 32, 32)
    before = encoder.features(values)
    with torch.no_grad():
        for parameter in UpperHalf(encoder, 1).parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    written = save_with_encoder(head_for(encoder), encoder, tmp_path / "head.safetensors")
    with safetensors.safe_open(tmp_path / "head.safetensors", framework="pt") as file:
        assert '"version": 2' in str(file.metadata())  # older readers must not take the frozen encoder instead
    head = load_head(tmp_path / "head.safetensors")
    assert head.encoder == written.encoder
    loaded = referenced_encoder(tmp_path / "head.safetensors", head.encoder)
    assert torch.equal(loaded.features(values), encoder.features(values))
    assert not torch.allclose(loaded.features(values), before, atol=1e-3)


@pytest.mark.transformers
def test_a_checkpoint_of_transformers_5_is_saved_and_read(
    checkpoint: Callable[[str], Path], head_for: Callable[[Encoder], TrainedHead], tmp_path: Path
):
    folder = Path(shutil.copytree(checkpoint("clip"), tmp_path / "clip"))
    rule = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": rule}))
    encoder = Encoder.from_pretrained(str(folder))
    head = save_with_encoder(head_for(encoder), encoder, tmp_path / "head.safetensors")
    assert referenced_encoder(tmp_path / "head.safetensors", head.encoder).preprocessing == encoder.preprocessing
    assert head.encoder is not None
    saved = tmp_path / str(head.encoder.folder) / "processor_config.json"
    saved.write_text(saved.read_text().replace("0.48", "0.49"))
    with pytest.raises(HeadError, match="not the encoder that was fine-tuned"):
        referenced_encoder(tmp_path / "head.safetensors", head.encoder)


@pytest.mark.transformers
def test_an_encoder_that_is_missing_moved_or_changed(tuned: Path, tmp_path: Path):
    def export(*options: object) -> tuple[int, str]:
        done = run("clip-export", "--head", "head.pt", *options, cwd=tmp_path)
        assert done.returncode == 0 or not (tmp_path / "model.onnx").exists()
        return done.returncode, done.stderr

    shutil.copy(tuned / "head.pt", tmp_path)
    code, said = export()
    assert code == 1
    folder = encoder_of(tmp_path)
    assert f"{Path(folder.name) / 'model.safetensors'} is missing" in said
    assert f"Keep the folder {folder.name} beside the head file" in said

    code, said = export("--encoder", TINY_CLIP)
    assert code == 1
    assert "is not the encoder that was fine-tuned with this head" in said

    shutil.copytree(encoder_of(tuned), folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["vision_model.post_layernorm.bias"] += 1e-3
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(tensors, path, metadata)
    code, said = export()
    assert code == 1
    assert "SHA-256" in said

    shutil.rmtree(folder)
    assert export("--encoder", encoder_of(tuned)) == (0, "")


@pytest.mark.transformers
def test_changed_preprocessing_is_noticed_too(tuned: Path, tmp_path: Path):
    shutil.copytree(tuned, tmp_path, dirs_exist_ok=True)
    path = encoder_of(tmp_path) / "preprocessor_config.json"
    path.write_text(path.read_text(encoding="utf-8").replace("0.48", "0.49"), encoding="utf-8")
    with pytest.raises(HeadError, match="not the encoder that was fine-tuned"):
        referenced_encoder(tmp_path / "head.pt", load_head(tmp_path / "head.pt").encoder)


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_break_leaves_a_checkpoint_and_changes_nothing(
    crosses: Path, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
):
    arguments = (crosses, *UNFREEZE, "--test-fraction", 0.25)
    learn = Run.epoch

    def broken(self: Run, *sides: object) -> object:
        if self.history and self.history[0].number == 0 and self.history[-1].number == epoch - 1:
            raise KeyboardInterrupt
        return learn(self, *sides)

    monkeypatch.setattr(Run, "epoch", broken)
    done = run("clip-train", *arguments, "--encoder", TINY_CLIP, cwd=tmp_path)
    assert done.returncode == 130
    assert "the checkpoint is head.pt.encoder.checkpoint: continue with --resume" in done.stderr
    assert not (tmp_path / "head.pt").exists()
    monkeypatch.undo()
    done = train(*arguments, "--resume", cwd=tmp_path)
    assert "training: resuming after epoch 15" in done.stderr
    assert f"fine-tuning: resuming after epoch {epoch - 1}" in done.stderr
    assert "0 computed, 64 from the cache" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {encoder_of(tmp_path).name, "head.pt"}
    assert load_head(tmp_path / "head.pt").encoder == load_head(tuned / "head.pt").encoder
    for ours, theirs in zip(*(load_head(f / "head.pt").module.parameters() for f in (tmp_path, tuned)), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "computed hidden states are kept: continue with --resume"),
        (("--no-cache",), "with --no-cache no hidden states are kept: continue with --resume"),
    ],
)
def test_a_break_before_the_first_epoch_says_what_is_kept(
    crosses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], said: str
):
    def broken(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(hidden_stage, "compute_hidden_states", broken)
    done = run("clip-train", crosses, "--epochs", 1, "--unfreeze", 1, "--encoder", TINY_CLIP, *options, cwd=tmp_path)
    assert done.returncode == 130
    assert said in done.stderr
    assert (tmp_path / "head.pt.checkpoint").exists()


def test_without_a_cache_and_with_views(crosses: Path, tmp_path: Path):
    quick = ("--unfreeze", 1, "--encoder-epochs", 1, "--epochs", 2, "--encoder-lr", "1e-3", "--accumulate", 2)
    done = train(crosses, *quick, "--no-cache", "--augment", 1, cwd=tmp_path)
    assert "below the last 1 of 4 blocks: 116 computed, 0 from the cache" in done.stdout


def test_a_cut_encoder_is_distilled_to_a_proved_file(crosses: Path, tmp_path: Path):
    more = tmp_path / "more"
    more.mkdir()
    for number in range(4):
        Image.new("RGB", (70, 70), (40 * number, 90, 200)).save(more / f"{number}.png")
    shutil.copy(next((crosses / "turned").iterdir()), more)
    distil = ("--feature", "class+mean@2", *UNFREEZE, "--distil", "--unlabelled", more)
    done = train(crosses, *distil, "--augment", 1, cwd=tmp_path)
    assert "unlabelled: 4 images" in done.stdout
    assert "1 images are in the data set, and left out here" in done.stderr
    assert "hidden states below the last 2 of 2 blocks: 120 computed, 0 from the cache" in done.stdout
    assert "the fine-tuned encoder fits class+mean@2 alone" in done.stderr
    head = load_head(tmp_path / "head.pt")
    assert head.training["distilled from"] == "class+mean@4 on 108 images and views, 4 without a label"
    with pytest.raises(HeadError, match=r"has learnt class\+mean@2, not class\+mean@1. Leave out --feature"):
        referenced_encoder(tmp_path / "head.pt", head.encoder, feature="class+mean@1")
    records = classified(tmp_path, *sorted(crosses.rglob("*.png")))
    right = [item["label"] == Path(item["image"]).parent.name for item in records]
    assert np.mean(right) == pytest.approx(float(head.training["train accuracy"].rstrip("%")) / 100, abs=0.2)


def test_the_frozen_head_stays_where_it_was_better(crosses: Path, tmp_path: Path):
    (tmp_path / "head.pt.encoder-0123456789ab").mkdir()
    done = train(crosses, "--unfreeze", 1, "--encoder-epochs", 1, "--encoder-lr", 30, "--epochs", 10, cwd=tmp_path)
    assert "the frozen encoder and its head are kept" in done.stderr
    assert "head.pt.encoder-0123456789ab: belongs to an earlier head.pt. Delete it unless" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.pt", "head.pt.encoder-0123456789ab"]
    assert load_head(tmp_path / "head.pt").encoder.folder is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--unfreeze", 5), "cannot unfreeze 5 blocks, it has 4. Give 1 to 4"),
        (("--unfreeze", 1, "--device", "cpu", "--precision", "bfloat16"), "expected a CUDA device, got cpu"),
        (("--unfreeze", 1, "--encoder-lr", "1e30"), "Lower the learning rate"),
        (("--unfreeze", 1, "--feature", "mean@4", "--distil"), "mean@4 is made of all 4 blocks"),
        (("--unfreeze", 1, "--feature", "mean@2", "--distil", "--unlabelled", "no"), "no: is not a folder"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(map(str, value)).strip("-"),
)
def test_bad_input_is_said_in_a_line(crosses: Path, tmp_path: Path, options: tuple[object, ...], said: str):
    assert said in failed(crosses, "--epochs", 2, *options, cwd=tmp_path)
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--unfreeze", "0"), "expected a whole number from 1"),
        (("--encoder-lr", "1e-4"), "--encoder-lr needs --unfreeze"),
        (("--accumulate", "2"), "--accumulate needs --unfreeze"),
        (("--unfreeze", "1", "--sweep"), "--sweep does not go with --unfreeze: sweep first"),
        (("--unfreeze", "1", "--clip-norm", "0"), "expected a number above 0"),
        (("--distil", "--feature", "mean@2"), "--distil needs --unfreeze"),
        (("--unfreeze", "1", "--distil"), "--distil needs a --feature of a depth"),
        (("--unfreeze", "1", "--feature", "mean@2", "--unlabelled", "more"), "--unlabelled needs --distil"),
    ],
)
def test_options_that_do_not_go_together(options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit_info:
        parse_args(["photos", "--encoder", "x", *options])
    assert exit_info.value.code == 2
    assert said in capsys.readouterr().err


class Pair:
    """A tiny encoder, and the heads that are saved with it into a folder."""

    def __init__(self, encoder: Encoder, head: TrainedHead, folder: Path) -> None:
        self.encoder, self.head, self.folder = encoder, head, folder

    def save(self, name: str = "head.pt") -> Path:
        return self.folder / save_with_encoder(self.head, self.encoder, self.folder / name).encoder.folder

    def learn(self) -> None:
        self.encoder.tower.post_layernorm.bias.data += 1

    def read(self, name: str = "head.pt") -> Encoder:
        return referenced_encoder(self.folder / name, load_head(self.folder / name).encoder)

    def contents(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture
def pair(checkpoint: Callable[[str], Path], head_for: Callable[[Encoder], TrainedHead], tmp_path: Path) -> Pair:
    encoder = Encoder.from_pretrained(str(checkpoint("clip")))
    return Pair(encoder, head_for(encoder), tmp_path)


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("fails", [(shutil, "copyfile"), (Path, "write_bytes"), (Path, "rename"), (Path, "replace")])
def test_a_full_disk_leaves_the_earlier_pair(pair: Pair, monkeypatch: pytest.MonkeyPatch, fails: tuple[object, str]):
    pair.save()
    before = pair.contents()
    pair.learn()
    with monkeypatch.context() as patch:
        patch.setattr(*fails, full)
        with pytest.raises(OutputError, match="No space left"):
            pair.save()
    assert pair.contents() == before
    assert len(list(pair.folder.iterdir())) == 2
    pair.read()
    pair.save()
    assert torch.equal(pair.read().tower.post_layernorm.bias, pair.encoder.tower.post_layernorm.bias)


def test_heads_of_one_name_in_two_formats_have_an_encoder_each(pair: Pair):
    first = pair.save("head.pt")
    pair.learn()
    second = pair.save("head.safetensors")
    biases = [pair.read(name).tower.post_layernorm.bias for name in ("head.pt", "head.safetensors")]
    assert torch.equal(biases[1], pair.encoder.tower.post_layernorm.bias)
    assert float((biases[1] - biases[0]).min()) > 0.9
    assert earlier_encoders(pair.folder / "head.pt", load_head(pair.folder / "head.pt").encoder) == []
    assert earlier_encoders(pair.folder / "head.pt", None) == [first]
    assert earlier_encoders(pair.folder / "head.safetensors", None) == [second]


def test_an_encoder_is_never_replaced(pair: Pair):
    folder = pair.save()
    shutil.copy(pair.folder / "head.pt", pair.folder / "copy.pt")
    pair.learn()
    assert pair.save() != folder
    pair.read("copy.pt")
    assert pair.save() == pair.save()  # the same encoder needs no second folder
    assert earlier_encoders(pair.folder / "head.pt", load_head(pair.folder / "head.pt").encoder) == [folder]


@pytest.mark.parametrize("damage", ["changed", "incomplete", "somebody's"])
def test_a_folder_that_holds_something_else_is_left_alone(pair: Pair, damage: str):
    folder = pair.save()
    (pair.folder / "head.pt").unlink()
    if damage == "changed":
        (folder / "config.json").write_text("{}", encoding="utf-8")
    else:
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "notes").touch()
    if damage == "somebody's":
        (folder / "model.safetensors").touch()
    before = pair.contents()
    with pytest.raises(OutputError, match="does not hold the encoder that its name says"):
        pair.save()
    assert pair.contents() == before


def test_a_fine_tuned_encoder_has_no_other_revision(pair: Pair):
    pair.save()
    with pytest.raises(HeadError, match="Leave out --revision"):
        referenced_encoder(pair.folder / "head.pt", load_head(pair.folder / "head.pt").encoder, revision="main")


def test_a_linked_folder_is_an_encoder_like_another(pair: Pair):
    folder = pair.save()
    folder.rename(pair.folder / "elsewhere")
    folder.symlink_to(pair.folder / "elsewhere")
    assert pair.save() == folder
    assert folder.is_symlink()
    pair.read()


def test_heads_of_the_first_format_are_still_read(
    checkpoint: Callable[[str], Path], head_for: Callable[[Encoder], TrainedHead], tmp_path: Path
):
    head = head_for(Encoder.from_pretrained(str(checkpoint("clip"))))
    path = tmp_path / "head.safetensors"
    save_head(head, path)
    with safetensors.safe_open(path, framework="pt") as file:
        (key, text), *_ = file.metadata().items()
    assert '"version": 1' in text  # nothing in it is news to older readers
    old = text.replace(', "folder": null, "sha256": null', "")
    assert "folder" not in old.partition('"labels"')[0]
    save_file(load_file(path), path, {key: old})
    assert replace(load_head(path), module=head.module) == head
    assert LowerHalf(referenced_encoder(path, load_head(path).encoder), 1).shape == (17, 48)
