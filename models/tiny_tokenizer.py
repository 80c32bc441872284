"""The tokenizer of tiny-clip: CLIP's byte-level byte-pair encoding, with merges learnt from captions of scenes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scenes import phrase, random_scene
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizerFast

CONTEXT = 32  # most tokens in a text, with the start and end marks
START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"


def learn_tokenizer(folder: Path, seed: int, captions: int = 20_000, merges: int = 400) -> CLIPTokenizerFast:
    """Learn at most `merges` byte pairs, write vocab.json and merges.txt to `folder`, return the tokenizer.

    The vocabulary is laid out as CLIP's: 256 byte symbols, the same as the end of a word, the merges, the start
    and end marks. With every byte in it any text can be encoded, though the model has only seen captions.
    """
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = _learn_pairs(_captions(captions, seed), symbols, merges)
    words = [*symbols, *(symbol + WORD_END for symbol in symbols), *(a + b for a, b in pairs), START, END]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in pairs)]
    folder.mkdir(parents=True, exist_ok=True)
    vocab_file, merges_file = folder / "vocab.json", folder / "merges.txt"
    vocab_file.write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    merges_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return CLIPTokenizerFast(str(vocab_file), str(merges_file), model_max_length=CONTEXT)


def _learn_pairs(texts: Iterator[str], symbols: list[str], merges: int) -> list[tuple[str, str]]:
    """Return the pairs of symbols to merge, most frequent first."""
    learner = Tokenizer(models.BPE(end_of_word_suffix=WORD_END))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(symbols) + merges,
        initial_alphabet=symbols,
        end_of_word_suffix=WORD_END,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    return [(a, b) for a, b in json.loads(learner.to_str())["model"]["merges"]]


def _captions(n: int, seed: int) -> Iterator[str]:
    rng = np.random.default_rng(seed)
    return (phrase(random_scene(rng), rng)[0] for _ in range(n))
