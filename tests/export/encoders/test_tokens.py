"""Features of any depth: transformers' hidden states, one pass for all of them, and what is refused."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from clip_export.commands.export_options import parse_args as parse_export
from clip_export.commands.train_options import parse_args as parse_train
from clip_export.encoders.image import Encoder
from clip_export.features.cache import FeatureCache
from clip_export.features.images import image_features
from clip_export.graph.vit_weights import canonical_vit
from clip_export.heads.pooling import learnt_pooling
from clip_export.proof.optimum import optimum_differences
from clip_export.samples.pictures import proof_files
from clip_toolkit.errors import EncoderError

pytestmark = pytest.mark.transformers

EncoderOf = Callable[..., Encoder]
READ = [("clip", "class+mean", 1), ("clip", "class", 2), ("clip", "mean", 3), ("clip", "class", 3)]
READ += [("siglip", "mean", 2), ("blip", "class+mean", 2), ("dinov2-registers", "class+mean", 2)]
READ += [("dinov3", "class+mean", 2), ("mlcd", "class+mean", 2), ("altclip", "class", 1)]


def pooled(hidden: torch.Tensor, pooling: str, prefix: int) -> torch.Tensor:
    """What a feature of a depth is, from the hidden states of transformers."""
    parts = {"class": hidden[:, 0], "mean": hidden[:, prefix:].mean(1)}
    read = [functional.layer_norm(parts[name], (48,), eps=1e-6) for name in pooling.split("+")]
    return torch.cat(read, 1)


def hidden_state(tower: torch.nn.Module, values: torch.Tensor, depth: int) -> torch.Tensor:
    """What transformers itself says; SigLIP's tower tells none, and is cut."""
    states = tower(pixel_values=values, output_hidden_states=True).hidden_states
    if states is not None:
        return states[depth]
    cut = copy.deepcopy(tower)
    cut.encoder.layers = cut.encoder.layers[:depth]
    return cut.encoder(inputs_embeds=cut.embeddings(values)).last_hidden_state


@pytest.mark.parametrize(("name", "pooling", "depth"), READ)
@torch.inference_mode()
def test_they_are_transformers_hidden_states_and_the_cut_encoder_computes_them(
    encoder: EncoderOf, name: str, pooling: str, depth: int
):
    used = encoder(name, f"{pooling}@{depth}")
    values = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    before_patches = (name != "siglip") + getattr(used.tower.config, "num_register_tokens", 0)
    expected = pooled(hidden_state(used.tower, values, depth), pooling, before_patches)
    assert expected.shape == (2, used.dim)
    torch.testing.assert_close(used.features(values), expected, atol=1e-4, rtol=1e-4)
    vit = canonical_vit(used, takes_pixel_values=True)
    torch.testing.assert_close(vit(values), expected, atol=1e-4, rtol=1e-4)
    assert len(vit.blocks) == depth
    assert not any(weight.startswith(("post_norm", "pool", "projection")) for weight in vit.state_dict())


@pytest.mark.parametrize(("name", "pooling"), [("clip", "class+attention"), ("dinov3", "attention")])
@torch.no_grad()
def test_a_query_weighs_the_patches_and_the_mean_stands_for_one_that_is_not_learnt(
    encoder: EncoderOf, name: str, pooling: str
):
    plain = encoder(name, f"{pooling}@2")
    learnt = learnt_pooling(plain, 3 * torch.randn(48, generator=torch.Generator().manual_seed(2)))
    values = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    hidden = hidden_state(plain.tower, values, 2)
    patches = hidden[:, 1 + getattr(plain.tower.config, "num_register_tokens", 0) :]
    normed = (patches - patches.mean(-1, keepdim=True)) / patches.std(-1, correction=0, keepdim=True)
    weights = (normed @ learnt.query / 48**0.5).softmax(1)
    assert weights.amax(1).min() > 1.5 / patches.shape[1]  # far from equal
    read = [hidden[:, 0]] * (pooling != "attention") + [torch.einsum("bp,bpw->bw", weights, patches)]
    expected = torch.cat([functional.layer_norm(token, (48,), eps=1e-6) for token in read], 1)
    torch.testing.assert_close(learnt.features(values), expected, atol=1e-4, rtol=1e-4)
    mean = encoder(name, str(plain.tokens.unlearnt))
    assert torch.equal(plain.features(values), mean.features(values))
    zero = learnt_pooling(plain, torch.zeros(48)).features(values)
    torch.testing.assert_close(zero, mean.features(values), atol=1e-5, rtol=1e-5)


def test_features_of_a_learnt_query_are_kept_apart(encoder: EncoderOf, tmp_path: Path):
    (tmp_path / "0.png").write_bytes(proof_files(32)[0])
    plain = encoder("clip", "class+attention@2")
    learnt = [learnt_pooling(plain, query) for query in (torch.ones(48).cumsum(0), -torch.ones(48).cumsum(0))]
    made = []
    for used in (plain, *learnt, *learnt):
        cache = FeatureCache(tmp_path / "cache", used)
        made.append(image_features(used, [tmp_path / "0.png"], cache=cache))
    assert [features.computed for features in made] == [1, 1, 1, 0, 0]
    assert len({tuple(features.values[0].tolist()) for features in made}) == 3
    by_graph = image_features(learnt[1], [tmp_path / "0.png"], backend="onnxruntime")
    torch.testing.assert_close(by_graph.values, made[-1].values, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_one_pass_is_enough_for_all_of_them(encoder: EncoderOf, tmp_path: Path, backend: str):
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file, content in zip(files, proof_files(32), strict=False):
        file.write_bytes(content)
    first, second = encoder("clip", "class+mean@3"), encoder("clip", "mean@1")
    rows = image_features(first, files, backend=backend, cache=FeatureCache(tmp_path / "cache", first), all_depths=True)
    again = image_features(second, files, cache=FeatureCache(tmp_path / "cache", second))
    assert (rows.computed, again.computed) == (3, 0)
    assert rows.values.shape == (3, 3, 2, 48)
    torch.testing.assert_close(again.values, rows.values[:, 0, 1])
    torch.testing.assert_close(again.values, image_features(second, files).values, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "feature", "said"),
    [
        ("clip", "class@4", r"class@4 reads tokens after block 4, and it has 3\."),
        ("siglip", "class+mean@2", r"siglip encoders have none\. Use --feature mean@2\."),
        ("siglip", "class@2", r"siglip encoders have none\. Use --feature mean@2\."),
        ("siglip", "class+attention@2", r"siglip encoders have none\. Use --feature attention@2\."),
        ("clip", "max@2", "expected pooled, projected or class@BLOCK"),
        ("clip", "mean@0", "got 'mean@0'"),
    ],
)
def test_features_that_an_encoder_does_not_have(encoder: EncoderOf, name: str, feature: str, said: str):
    with pytest.raises(EncoderError, match=said):
        encoder(name, feature)


def test_what_reads_the_towers_output_refuses_them_by_name(encoder: EncoderOf):
    used = encoder("clip", "class@2")
    with pytest.raises(EncoderError, match=r"class@2 ends at a block\. Leave out --cross-check"):
        optimum_differences(used, torch.nn.Identity(), (), None)


@pytest.mark.parametrize(
    ("parse", "options", "said"),
    [
        (parse_train, ("photos", "--encoder", "x", "--init", "zero-shot"), "--init zero-shot does not go with"),
        (parse_export, ("--zero-shot", "--encoder", "x", "--labels", "a", "b"), "--zero-shot reads the projected"),
        (parse_export, ("--head", "h.pt", "--feature", "mean@x"), "expected pooled, projected or class@BLOCK"),
    ],
)
def test_usage(capsys: pytest.CaptureFixture[str], parse: Callable, options: tuple[str, ...], said: str):
    with pytest.raises(SystemExit) as stopped:
        parse(["--feature", "mean@2", *options])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
