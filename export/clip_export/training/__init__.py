"""Train a head on the features of a frozen encoder, and see how good it is. docs/training.md shows the few lines."""

from clip_export.data.dataset import Dataset
from clip_export.data.groups import with_groups
from clip_export.data.image_folder import read_image_folder
from clip_export.data.manifest import read_manifest
from clip_export.data.splits import Split, split_dataset
from clip_export.encoders.image import Encoder
from clip_export.features.cache import FeatureCache
from clip_export.features.images import Features, image_features
from clip_export.heads.mlp import VLMtoMLP
from clip_export.training.judging.evaluation import Evaluation, evaluate
from clip_export.training.loop import Epoch, Examples, Training, train_head
from clip_export.training.options import TrainingOptions
from clip_export.training.preparation import examples

__all__ = [
    "Dataset",
    "Encoder",
    "Epoch",
    "Evaluation",
    "Examples",
    "FeatureCache",
    "Features",
    "Split",
    "Training",
    "TrainingOptions",
    "VLMtoMLP",
    "evaluate",
    "examples",
    "image_features",
    "read_image_folder",
    "read_manifest",
    "split_dataset",
    "train_head",
    "with_groups",
]
