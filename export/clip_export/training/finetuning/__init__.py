"""Fine-tuning: the last blocks of an encoder learn together with the head, on hidden states computed once."""

from clip_export.training.finetuning.finetune import finetune
from clip_export.training.finetuning.halves import LowerHalf, UpperHalf, check_blocks
from clip_export.training.finetuning.hidden_states import (
    HiddenStates,
    check_room,
    features_of,
    hidden_cache,
    hidden_states,
)
from clip_export.training.finetuning.options import FinetuningOptions

__all__ = [
    "FinetuningOptions",
    "HiddenStates",
    "LowerHalf",
    "UpperHalf",
    "check_blocks",
    "check_room",
    "features_of",
    "finetune",
    "hidden_cache",
    "hidden_states",
]
