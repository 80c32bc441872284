"""Fine-tuning: the last blocks of an encoder learn together with the head, on hidden states computed once.

With an encoder, a head that was trained on its features, and the files and targets of either side:

    lower = LowerHalf(encoder, blocks=2)
    cache = hidden_cache(Path("cache"), lower)
    train = Examples(hidden_states(lower, train_files, cache), train_targets)
    validation = Examples(hidden_states(lower, validation_files, cache), validation_targets)
    training = finetune(encoder, head, train, validation, FinetuningOptions(blocks=2))

The encoder has changed in place and goes with ``training.head``:
`clip_export.heads.tuned_encoder.save_with_encoder` writes both.
"""

from clip_export.training.finetuning.finetune import finetune
from clip_export.training.finetuning.halves import LowerHalf, UpperHalf, check_blocks
from clip_export.training.finetuning.hidden_states import (
    HiddenCache,
    HiddenStates,
    check_room,
    features_of,
    hidden_cache,
    hidden_states,
)
from clip_export.training.finetuning.options import FinetuningOptions

__all__ = [
    "FinetuningOptions",
    "HiddenCache",
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
