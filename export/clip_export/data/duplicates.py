"""What a user should know of files that are there twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clip_export.data.dataset import Dataset
from clip_export.data.splits import Split, duplicates_across


def duplicate_notes(dataset: Dataset, split: Split, contents: Sequence[str]) -> Iterator[str]:
    """A line on copies among training and held-out files, and one on each pair that has different labels.

    Args:
        dataset: the readable files.
        split: their sides.
        contents: of each file, a hash of its content.
    """
    if dataset.texts is not None:  # the same picture with another text is another example
        contents = [f"{content} {text}" for content, text in zip(contents, dataset.texts, strict=True)]
    pairs = duplicates_across(split, contents)
    if pairs:
        first, second = (dataset.relative(index) for index in pairs[0])
        yield (
            f"{len(pairs)} held-out files equal training files byte for byte, such as {second} and {first}: the "
            "figures flatter the head. Remove them."
        )
    targets: dict[str, list[int]] = {}
    for index, content in enumerate(contents):
        targets.setdefault(content, []).append(index)
    for same in targets.values():
        other = next((i for i in same if (dataset.targets[i] != dataset.targets[same[0]]).any()), None)
        if other is not None:
            yield f"{dataset.relative(same[0])} and {dataset.relative(other)} are the same file with different labels"
