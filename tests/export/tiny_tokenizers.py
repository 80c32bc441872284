"""Tokenizers of every family with a text tower, tiny, in the files that the families' authors publish."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

CONTEXT = 24  # most tokens in a text, with the marks around it

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WORDS = ("photo", "of", "the", "red", "blue", "circle", "square")


def _tokens(vocabulary: int, begin: int, end: int, pad: int) -> dict[str, int]:
    return {"vocab_size": vocabulary, "bos_token_id": begin, "eos_token_id": end, "pad_token_id": pad}


_BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())

CLIP_TOKENS = _tokens(2 * len(_BYTES) + 2, 2 * len(_BYTES), 2 * len(_BYTES) + 1, 2 * len(_BYTES) + 1)
SIGLIP_TOKENS = _tokens(64, 1, 1, 1)
SIGLIP2_TOKENS = _tokens(4 + 256 + 1 + len(_LETTERS), 2, 1, 0)
ROBERTA_TOKENS = {"vocab_size": 6 + len(_LETTERS), "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
TIPSV2_TOKENS = {"vocab_size": 2 + 256 + 1 + len(_LETTERS), "pad_token_id": 0}
BLIP_TOKENS = _tokens(5 + 2 * len(_LETTERS) + len(_WORDS), 2, 3, 0)


def save_clip(folder: Path) -> None:
    """Byte-level byte-pair encoding that has learnt no pairs."""
    alphabet = [*_BYTES, *(f"{byte}</w>" for byte in _BYTES), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(alphabet)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    marks = {"bos_token": "<|startoftext|>", **dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")}
    _save_configuration(folder, "CLIPTokenizer", **marks)


def save_siglip(folder: Path) -> None:
    """A sentencepiece model that has learnt letters."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(_WORDS), *_LETTERS] * 20),
        model_writer=model,
        model_type="unigram",
        vocab_size=SIGLIP_TOKENS["vocab_size"],
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    marks = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    _save_configuration(folder, "SiglipTokenizer", **marks)


def save_siglip2(folder: Path) -> None:
    """Gemma's: byte-pair encoding with bytes for what it does not know, and an end mark. It keeps upper case."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *_LETTERS]
    vocabulary = {token: index for index, token in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], fuse_unk=True, byte_fallback=True))
    tokenizer.model.unk_token = special[-1]
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing("$A:0 <eos>:0", None, [("<eos>", 1)])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    marks = {f"{token[1:-1]}_token": token for token in special}
    flags = {"add_bos_token": False, "add_eos_token": True, "padding_side": "right"}
    _save_configuration(folder, "GemmaTokenizer", **marks, **flags)


def save_tipsv2(folder: Path) -> None:
    """Byte-pair encoding of lower-cased words, which marks no ends, as transformers writes it since 5.14."""
    pieces = ["<pad>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *_LETTERS]
    vocabulary = {token: index for index, token in enumerate(pieces)}
    transformers.Tipsv2Tokenizer(vocab=vocabulary, model_max_length=CONTEXT).save_pretrained(folder)


def save_blip(folder: Path) -> None:
    """BERT's: word pieces, which are letters here, and a few words."""
    pieces = [*_LETTERS, *(f"##{letter}" for letter in _LETTERS), *_WORDS]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*special, *pieces]) + "\n", encoding="utf-8")
    _save_configuration(folder, "BertTokenizer", do_lower_case=True)


def save_roberta(folder: Path) -> None:
    """XLM-RoBERTa's: a sentencepiece model of letters, in the form of the tokenizers package."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*special, "▁", *_LETTERS, "<mask>"]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", None, [("<s>", 0), ("</s>", 2)])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    marks = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    marks |= {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
    _save_configuration(folder, "XLMRobertaTokenizer", **marks)


def _save_configuration(folder: Path, kind: str, **options: Any) -> None:
    content = {"tokenizer_class": kind, "model_max_length": CONTEXT, **options}
    (folder / "tokenizer_config.json").write_text(json.dumps(content), encoding="utf-8")
