"""Train heads on frozen CLIP encoders, and export encoder, head and preprocessing as one proved ONNX file.

from clip_export import Encoder, export_classifier, load_head

encoder = Encoder.from_pretrained("openai/clip-vit-base-patch32")
export_classifier(load_head("head.pt"), encoder, "model.onnx")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clip_toolkit.lazy import lazy_names

_HOMES = {
    "Dataset": "clip_toolkit.data.dataset",
    "Encoder": "encoders.image",
    "EncoderReference": "heads.references",
    "Evaluation": "training.judging.evaluation",
    "Examples": "training.epochs",
    "ExportOptions": "exporting",
    "FeatureCache": "features.cache",
    "Features": "features.images",
    "FinetuningOptions": "training.finetuning.options",
    "Limits": "tuning.options",
    "LowerHalf": "training.finetuning.halves",
    "QuantizationOptions": "quantization.quantizing",
    "Split": "data.splits",
    "TextEncoder": "encoders.text",
    "TrainedHead": "heads.files",
    "Training": "training.loop",
    "TrainingOptions": "training.options",
    "Tuned": "tuning.tune",
    "TuningData": "tuning.options",
    "VLMtoMLP": "heads.mlp",
    "evaluate": "training.judging.evaluation",
    "examples": "training.preparation",
    "export_classifier": "exporting",
    "export_text_tower": "text_exporting",
    "finetune": "training.finetuning.finetune",
    "hidden_cache": "training.finetuning.hidden_states",
    "hidden_states": "training.finetuning.hidden_states",
    "image_features": "features.images",
    "load_head": "heads.files",
    "read_image_folder": "clip_toolkit.data.image_folder",
    "read_manifest": "clip_toolkit.data.manifest",
    "save_head": "heads.files",
    "save_with_encoder": "heads.tuned_encoder",
    "split_dataset": "data.splits",
    "text_features": "encoders.text",
    "train_head": "training.loop",
    "tune": "tuning.tune",
    "with_groups": "data.groups",
    "zero_shot_head": "heads.zero_shot",
}
"""Where each public name lives. Nothing is imported before it is asked for, so that ``--help`` waits for no torch."""

__all__ = list(_HOMES)

if TYPE_CHECKING:
    from clip_export.data.groups import with_groups as with_groups
    from clip_export.data.splits import Split as Split
    from clip_export.data.splits import split_dataset as split_dataset
    from clip_export.encoders.image import Encoder as Encoder
    from clip_export.encoders.text import TextEncoder as TextEncoder
    from clip_export.encoders.text import text_features as text_features
    from clip_export.exporting import ExportOptions as ExportOptions
    from clip_export.exporting import export_classifier as export_classifier
    from clip_export.features.cache import FeatureCache as FeatureCache
    from clip_export.features.images import Features as Features
    from clip_export.features.images import image_features as image_features
    from clip_export.heads.files import TrainedHead as TrainedHead
    from clip_export.heads.files import load_head as load_head
    from clip_export.heads.files import save_head as save_head
    from clip_export.heads.mlp import VLMtoMLP as VLMtoMLP
    from clip_export.heads.references import EncoderReference as EncoderReference
    from clip_export.heads.tuned_encoder import save_with_encoder as save_with_encoder
    from clip_export.heads.zero_shot import zero_shot_head as zero_shot_head
    from clip_export.quantization.quantizing import QuantizationOptions as QuantizationOptions
    from clip_export.text_exporting import export_text_tower as export_text_tower
    from clip_export.training.epochs import Examples as Examples
    from clip_export.training.finetuning.finetune import finetune as finetune
    from clip_export.training.finetuning.halves import LowerHalf as LowerHalf
    from clip_export.training.finetuning.hidden_states import hidden_cache as hidden_cache
    from clip_export.training.finetuning.hidden_states import hidden_states as hidden_states
    from clip_export.training.finetuning.options import FinetuningOptions as FinetuningOptions
    from clip_export.training.judging.evaluation import Evaluation as Evaluation
    from clip_export.training.judging.evaluation import evaluate as evaluate
    from clip_export.training.loop import Training as Training
    from clip_export.training.loop import train_head as train_head
    from clip_export.training.options import TrainingOptions as TrainingOptions
    from clip_export.training.preparation import examples as examples
    from clip_export.tuning.options import Limits as Limits
    from clip_export.tuning.options import TuningData as TuningData
    from clip_export.tuning.tune import Tuned as Tuned
    from clip_export.tuning.tune import tune as tune
    from clip_toolkit.data.dataset import Dataset as Dataset
    from clip_toolkit.data.image_folder import read_image_folder as read_image_folder
    from clip_toolkit.data.manifest import read_manifest as read_manifest
else:
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)
