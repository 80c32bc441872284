"""Fine-tuning the last blocks of an encoder: exact halves, what learns, what stays, and breaks that change nothing."""

import copy
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from clip_export.encoders.image import Encoder
from clip_export.features.images import Features, image_features, row_key
from clip_export.heads.mlp import VLMtoMLP
from clip_export.training.checkpoints import Checkpoints
from clip_export.training.epochs import Epoch, Examples, improvement, latest
from clip_export.training.finetuning.distillation import read_unlabelled, whole_encoder
from clip_export.training.finetuning.finetune import finetune, make_updates
from clip_export.training.finetuning.halves import LowerHalf, UpperHalf
from clip_export.training.finetuning.hidden_states import check_room, features_of, hidden_cache, hidden_states
from clip_export.training.finetuning.options import PRECISIONS, FinetuningOptions
from clip_export.training.loop import train_head
from clip_export.training.objective import Objective
from clip_export.training.options import TrainingOptions
from clip_export.training.run import Pace, Run
from clip_export.training.state import TrainingState
from clip_export.training.updates import Updates
from clip_toolkit.errors import DatasetError, DeviceError, EncoderError, OutputError
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, TASKS
from tiny_models import CHECKPOINTS, SIZE

EncoderOf = Callable[..., Encoder]

HEAD = TrainingOptions(epochs=10, learning_rate=3e-3, hidden_dim=16, batch_size=8, dropout=0.2, seed=3)
TUNING = FinetuningOptions(2, epochs=4, learning_rate=1e-3)
FEATURES = [(name, "pooled") for name in CHECKPOINTS] + [("clip", "projected"), ("blip-retrieval", "projected")]
CUTS = [(*read, blocks) for read in FEATURES for blocks in (1, 2, 3)]
CUTS += [("clip", "class+mean@2", 1), ("clip", "class@2", 2), ("siglip", "mean@2", 1), ("blip", "class+mean@2", 2)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Thirty pictures of stripes, of which every other one has them upright."""
    folder = tmp_path_factory.mktemp("stripes")
    rng = np.random.default_rng(2)
    for number in range(30):
        stripes = np.sin(np.arange(SIZE) * rng.uniform(0.5, 1.2) + rng.uniform(0, 6)) * 60
        picture = np.broadcast_to(stripes[:, None] if number % 2 else stripes, (SIZE, SIZE))
        noisy = picture[..., None] + rng.normal(120, 30, (SIZE, SIZE, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:02}.png")
    return sorted(folder.iterdir())


@pytest.fixture
def fresh(encoder: EncoderOf) -> EncoderOf:
    """A copy of a tiny encoder that may be changed."""
    return lambda *arguments: copy.deepcopy(encoder(*arguments))


class Task:
    """An encoder, a head trained on it while it was frozen, and examples for fine-tuning."""

    def __init__(self, encoder: Encoder, files: list[Path], folder: Path, task: str = SINGLE_LABEL) -> None:
        self.encoder, self.task = encoder, task
        numbers = torch.arange(30)
        targets = {
            SINGLE_LABEL: numbers % 2,
            MULTI_LABEL: torch.stack([numbers % 2 == 0, numbers % 2 == 1], 1).float(),
            REGRESSION: 500.0 + 30 * (numbers[:, None] % 2),
        }[task]
        lower = LowerHalf(encoder, TUNING.blocks)
        cache = hidden_cache(folder, lower)
        self.sides = [
            Examples(hidden_states(lower, files[part], cache), targets[part]) for part in (slice(0, 20), slice(20, 30))
        ]
        self.upper = UpperHalf(encoder, TUNING.blocks)
        frozen = [side._replace(features=features_of(self.upper, side.features)) for side in self.sides]
        outputs = 1 if task == REGRESSION else 2
        self.head = train_head(*frozen, outputs, HEAD, task=task).head

    def finetune(self, tuning: FinetuningOptions = TUNING, head: TrainingOptions = HEAD, **more: object):
        return finetune(self.upper, self.head, *self.sides, tuning, head_options=head, task=self.task, **more)


def weights(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in encoder.tower.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("name", "feature", "blocks"), CUTS)
def test_halves_are_the_encoder_and_so_are_their_gradients(fresh: EncoderOf, name: str, feature: str, blocks: int):
    encoder = fresh(name, feature)
    lower, upper = LowerHalf(encoder, blocks), UpperHalf(encoder, blocks).requires_grad_(True)
    values = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    hidden = lower(values)
    assert hidden.shape[1:] == lower.shape
    found = {}
    for kind, feature_of in (("halves", lambda: upper(hidden)), ("whole", lambda: encoder.features(values))):
        upper.zero_grad()
        outputs = feature_of()
        (outputs * torch.linspace(-1, 1, outputs.shape[1])).sum().backward()
        found[kind] = [outputs.detach(), *(parameter.grad for parameter in upper.parameters())]
    for ours, theirs in zip(found["halves"], found["whole"], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4 * float(theirs.abs().max()) + 1e-6, rtol=1e-4)


def test_an_encoder_is_only_cut_where_it_has_blocks(encoder: EncoderOf):
    for blocks in (0, 4):
        with pytest.raises(EncoderError, match=rf"cannot unfreeze {blocks} blocks, it has 3. Give 1 to 3"):
            UpperHalf(encoder("clip"), blocks)
    with pytest.raises(EncoderError, match=r"cannot unfreeze 3 blocks, it has 2 below mean@2. Give 1 to 2"):
        UpperHalf(encoder("clip", "mean@2"), 3)


def test_hidden_states_are_computed_once_for_each_cut(fresh: EncoderOf, files: list[Path], tmp_path: Path):
    encoder = fresh("clip")

    def computed(blocks: int) -> int:
        lower = LowerHalf(encoder, blocks)
        return hidden_states(lower, files[:5], hidden_cache(tmp_path, lower)).computed

    assert [computed(2), computed(2), computed(1)] == [5, 5 - 5, 5]
    UpperHalf(encoder, 2).blocks[0].layer_norm1.weight.data += 1  # of no concern to what lies below
    assert computed(2) == 0
    assert computed(1) == 5


def test_hidden_states_are_those_of_their_images_in_any_order(encoder: EncoderOf, files: list[Path], tmp_path: Path):
    lower = LowerHalf(encoder("clip"), 2)
    cache = hidden_cache(tmp_path, lower)
    states = hidden_states(lower, files, cache, batch_size=7)
    (single,) = hidden_states(lower, files[17:18], hidden_cache(tmp_path / "other", lower))[:]
    torch.testing.assert_close(states[torch.tensor([3, 17])][1], single)
    torch.testing.assert_close(states[16:18][1], single)
    assert len(states + states) == 60
    views = hidden_states(lower, files[17:18], cache, view=1)
    assert views.computed == 1
    assert not torch.allclose(views[:][0], single, atol=1e-3)


def test_a_file_that_has_gone_meanwhile_is_named(encoder: EncoderOf, files: list[Path], tmp_path: Path):
    lower = LowerHalf(encoder("clip"), 2)
    with pytest.raises(DatasetError, match=r"gone\.png"):
        hidden_states(lower, [*files[:3], tmp_path / "gone.png"], hidden_cache(tmp_path, lower))


def test_a_disk_without_room_is_said_before_anything_runs(
    encoder: EncoderOf, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lower = LowerHalf(encoder("clip"), 2)
    cache = hidden_cache(tmp_path, lower)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10 * cache.row_bytes))

    def keys(wanted: list[Path]) -> list[bytes]:
        return [row_key(hashlib.sha256(file.read_bytes()).digest()) for file in wanted]

    check_room(cache, keys(files[:10] * 2))
    with pytest.raises(OutputError, match="Name another disk with --cache"):
        check_room(cache, keys(files[:11]))
    hidden_states(lower, files[:15], cache)  # of which only some are asked for below
    check_room(cache, keys(files[10:25]))
    with pytest.raises(OutputError, match="Name another disk with --cache"):
        check_room(cache, keys(files[10:26]))


def test_hidden_states_do_not_pile_up_in_memory_where_the_disk_fails(
    encoder: EncoderOf, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    lower = LowerHalf(encoder("clip"), 2)
    cache = hidden_cache(tmp_path, lower)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match=r"No space left on device\)\. Name another disk with --cache"):
            hidden_states(lower, files[:3], cache)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be used .* Name another disk with --cache"):
        hidden_cache(tmp_path / "file", lower)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_gets_better_and_only_upper_blocks_change(
    fresh: EncoderOf, files: list[Path], tmp_path: Path, task: str
):
    used = Task(fresh("clip"), files, tmp_path, task)
    used.sides[1] = used.sides[0]  # what was learnt by heart is sure to be judged better
    before, head, drawn = weights(used.encoder), copy.deepcopy(used.head.state_dict()), torch.get_rng_state()
    reported: list[Epoch] = []
    training = used.finetune(replace(TUNING, epochs=15), report=reported.append)
    assert torch.equal(torch.get_rng_state(), drawn)  # the caller's random numbers are none of its business
    assert [epoch.number for epoch in reported] == list(range(16))
    assert training.best.number > 0
    assert training.best.val_loss < reported[0].val_loss
    changed = {name for name, tensor in weights(used.encoder).items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith(("encoder.layers.1.", "encoder.layers.2.", "post_layernorm.")) for name in changed)
    assert same(head, used.head.state_dict())
    assert not any(parameter.requires_grad for parameter in used.encoder.tower.parameters())
    features = features_of(UpperHalf(used.encoder, 2), used.sides[1].features)
    loss, score = Objective.fitted(task, used.sides[0].targets, training.head.spec.layers[-1], HEAD).judge(
        training.head, used.sides[1]._replace(features=features), 100
    )
    assert score == pytest.approx(training.best.val_score, abs=1e-3)
    if task != REGRESSION:  # whose loss was in other units
        assert loss == pytest.approx(training.best.val_loss, rel=1e-3)


def test_the_projection_learns_where_the_head_reads_it(fresh: EncoderOf, files: list[Path], tmp_path: Path):
    used = Task(fresh("clip", "projected"), files, tmp_path)
    before = used.encoder.projection.weight.clone()
    used.finetune()
    assert not torch.equal(used.encoder.projection.weight, before)


def test_what_makes_nothing_better_leaves_everything_as_it_was(fresh: EncoderOf, files: list[Path], tmp_path: Path):
    used = Task(fresh("clip"), files, tmp_path)
    before = weights(used.encoder)
    wrong = used.sides[1]._replace(targets=1 - used.sides[1].targets)
    training = finetune(used.upper, used.head, used.sides[0], wrong, TUNING, head_options=HEAD)
    assert training.best.number == 0
    assert training.head is used.head
    assert same(before, weights(used.encoder))


@pytest.mark.parametrize(
    ("scores", "losses", "expected"),
    [
        ((0.5, 0.6, 0.7), (1.0, 0.8, 0.9), 1),
        ((0.5, 0.4, 0.5), (1.0, 0.1, 0.9), 2),
        ((0.5, 0.9, 0.4), (1.0, 1.1, 0.2), 0),
        ((0.5, 0.5, 0.5), (1.0, float("nan"), 1.0), 0),
    ],
)
def test_the_epoch_is_chosen_by_loss_but_no_score_is_given_up(
    scores: tuple[float, ...], losses: tuple[float, ...], expected: int
):
    history = [Epoch(i, 0, 0, loss, score) for i, (score, loss) in enumerate(zip(scores, losses, strict=True))]
    assert improvement(history).number == expected


@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_resumed_fine_tuning_gives_the_same_weights(fresh: EncoderOf, files: list[Path], tmp_path: Path, after: int):
    whole, broken, resumed = (Task(fresh("clip"), files, tmp_path) for _ in range(3))
    expected = whole.finetune()
    checkpoints = Checkpoints(tmp_path / "checkpoint", "me")

    def stop(state: TrainingState) -> None:
        checkpoints.keep(state)
        if len(state.history) == after:
            checkpoints.write()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken.finetune(keep=stop)
    training = resumed.finetune(resume=checkpoints.read())
    assert (training.history, training.best) == (expected.history, expected.best)
    assert same(weights(whole.encoder), weights(resumed.encoder))
    assert same(expected.head.state_dict(), training.head.state_dict())


class Cut(Task):
    """An encoder of two blocks that is to come near to the whole one of three on the images of both sides."""

    def __init__(self, encoder: Encoder, files: list[Path], folder: Path) -> None:
        super().__init__(encoder, files, folder)
        images = self.sides[0].features + self.sides[1].features
        self.imitated = Examples(images, image_features(whole_encoder(encoder), files).values)

    def distance(self) -> float:
        """From the whole encoder's features, as a mean square."""
        made = features_of(UpperHalf(self.encoder, TUNING.blocks), self.imitated.features)
        return float(((made - self.imitated.targets) ** 2).mean())


def test_a_cut_encoder_comes_near_to_the_whole_one(fresh: EncoderOf, files: list[Path], tmp_path: Path):
    distances = []
    for weight in (0, 10):
        cut = Cut(fresh("clip", "class+mean@2"), files, tmp_path)
        cut.sides[1] = cut.sides[0]  # so that an epoch is sure to be kept
        before, start = weights(cut.encoder), cut.distance()
        training = cut.finetune(replace(TUNING, distil=weight), imitated=cut.imitated if weight else None)
        assert training.best.number > 0
        distances.append(cut.distance() / start)
        changed = {name for name, tensor in weights(cut.encoder).items() if not torch.equal(tensor, before[name])}
        assert changed
        assert all(name.startswith(("encoder.layers.0.", "encoder.layers.1.")) for name in changed)
    assert distances[1] < 0.8 * min(1, distances[0])


def test_a_resumed_distillation_gives_the_same_weights(fresh: EncoderOf, files: list[Path], tmp_path: Path):
    whole, resumed = (Cut(fresh("clip", "class+mean@2"), files, tmp_path) for _ in range(2))
    states: list[TrainingState] = []
    options = replace(TUNING, distil=1.0)
    expected = whole.finetune(options, imitated=whole.imitated, keep=states.append)
    assert resumed.finetune(options, imitated=resumed.imitated, resume=states[2]).history == expected.history
    assert same(weights(whole.encoder), weights(resumed.encoder))


def test_only_what_is_cut_can_imitate_the_whole(encoder: EncoderOf):
    for feature in ("class+mean@3", "pooled"):
        with pytest.raises(EncoderError, match=r"made of all 3 blocks. Name an earlier one .* class\+mean@1"):
            whole_encoder(encoder("clip", feature))


def test_unlabelled_images_are_those_that_the_data_set_lacks(encoder: EncoderOf, files: list[Path], tmp_path: Path):
    encode = partial(_encode, encoder("clip", "mean@3"))
    contents = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    shutil.copy(files[0], tmp_path / "known.png")
    with pytest.raises(DatasetError, match=r"all 1 images are in the data set\. Leave out --unlabelled"):
        read_unlabelled(tmp_path, encode, contents)
    shutil.copy(files[1], tmp_path / "new.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    found = read_unlabelled(tmp_path, encode, contents[:1])
    assert (found.files, found.contents, len(found.features)) == ([tmp_path / "new.png"], contents[1:2], 1)
    assert "broken.png" in found.notes[0]
    assert "1 images are in the data set, and left out here" in found.notes[1]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="none of 0 files can be read"):
        read_unlabelled(tmp_path / "empty", encode, ())


def _encode(encoder: Encoder, files: list[Path], view: int) -> Features:
    return image_features(encoder, files, view=view)


def test_accumulated_batches_are_as_good_as_one_large(fresh: EncoderOf, files: list[Path], tmp_path: Path):
    calm = replace(HEAD, dropout=0.0)
    found = []
    for size, accumulate in ((16, 1), (4, 4)):
        used = Task(fresh("clip"), files, tmp_path)
        used.finetune(replace(TUNING, accumulate=accumulate), replace(calm, batch_size=size))
        found.append(weights(used.encoder))
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name], atol=3e-4, rtol=1e-3)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("task", TASKS)
def test_accumulated_batches_of_weighted_classes_change_weights_as_one_large_does(task: str, smoothing: float):
    generator = torch.Generator().manual_seed(4)
    numbers = torch.arange(32)
    targets = (numbers < 27).long() if task == SINGLE_LABEL else (numbers[:, None] % 7 < torch.tensor([1, 5])).float()
    examples = Examples(torch.randn(32, 6, generator=generator), targets)
    options = TrainingOptions(class_weights="balanced", label_smoothing=smoothing)
    objective = Objective.fitted(task, targets, 2, options)
    found, losses = [], []
    for size, batches in ((16, 1), (4, 4)):
        torch.manual_seed(1)
        model = nn.Linear(6, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        updates = Updates(optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 10), batches=batches)
        losses.append(Run(model, objective, updates, Pace(1, size, size, None, latest)).epoch(examples, examples).loss)
        found.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-5)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_patience_ends_it_early(fresh: EncoderOf, files: list[Path], tmp_path: Path):
    used = Task(fresh("clip"), files, tmp_path)
    wrong = used.sides[1]._replace(targets=1 - used.sides[1].targets)
    options = replace(HEAD, patience=2)
    training = finetune(used.upper, used.head, used.sides[0], wrong, TUNING, head_options=options)
    assert [epoch.number for epoch in training.history] == [0, 1, 2]


def test_gradients_are_clipped():
    weight = nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    updates = Updates(optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 10), clip_norm=0.5)
    updates.gather((100 * weight).sum())
    updates.apply()
    assert float(weight.detach().norm()) == pytest.approx(0.5, rel=1e-4)
    updates.gather((0.01 * weight).sum())
    updates.apply()
    torch.testing.assert_close(weight.detach(), torch.full((4,), -0.25 - 0.01), atol=1e-5, rtol=0)


def test_mixed_precision_rounds_products_and_scales_small_gradients_without_changing_updates():
    found = []
    for precision in PRECISIONS:
        weight = nn.Parameter(torch.zeros(4))
        optimizer = torch.optim.SGD([weight], lr=1.0)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 10)
        updates = Updates(optimizer, schedule, clip_norm=1.0, precision=precision)
        with updates.autocast():
            assert (torch.ones(2, 4) @ torch.ones(4, 2)).dtype == getattr(torch, precision)
        updates.gather((torch.tensor([0.1, 0.2, 0.3, 1e-7]) * weight).sum())
        updates.apply()
        found.append(weight.detach())
        restored = Updates(optimizer, schedule, precision=precision)
        restored.restore(updates.state())
        assert restored.state() == updates.state()
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


def test_biases_and_norms_do_not_decay(fresh: EncoderOf):
    upper, head = UpperHalf(fresh("clip"), 2), VLMtoMLP(48, 8, 2)
    tuning = replace(TUNING, weight_decay=0.1)
    groups = make_updates(upper, head, tuning, replace(HEAD, weight_decay=0.3)).optimizer.param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(1e-3, 0.1), (1e-3, 0.0), (3e-3, 0.3)]
    assert all(parameter.ndim < 2 for parameter in groups[1]["params"])
    expected = len(list(upper.parameters())) + len(list(head.parameters()))
    assert sum(len(group["params"]) for group in groups) == expected


def test_exploding_loss_is_named(fresh: EncoderOf, files: list[Path], tmp_path: Path):
    used = Task(fresh("clip"), files, tmp_path)
    with pytest.raises(DatasetError, match=r"epoch \d, batch \d: the loss became .* Lower the learning rate"):
        used.finetune(replace(TUNING, learning_rate=1e30))


def test_too_little_memory_names_a_batch_that_may_fit(
    fresh: EncoderOf, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    used = Task(fresh("clip"), files, tmp_path)

    def forward(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(UpperHalf, "forward", forward)
    with pytest.raises(DeviceError, match=r"out of memory with 8 images at a time. Try --batch-size 4 --accumulate 2"):
        used.finetune()
    with pytest.raises(DeviceError, match="Try fewer blocks"):
        used.finetune(head=replace(HEAD, batch_size=1))
    with pytest.raises(DeviceError, match=r"out of memory with 6 images at a time. Try --batch-size 3\."):
        features_of(UpperHalf(used.encoder, 2), used.sides[0].features, 6)


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_mixed_precision_needs_a_gpu(precision: str):
    with pytest.raises(DeviceError, match=rf"precision {precision}: expected a CUDA device, got cpu"):
        FinetuningOptions(2, precision=precision).check_device()
