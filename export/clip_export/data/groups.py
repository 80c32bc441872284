"""Groups of images that must stay together: a patient's X-rays, a product's photos."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from clip_toolkit.data.dataset import Dataset
from clip_toolkit.errors import DatasetError
from clip_toolkit.files.csv_table import SUFFIXES, read_rows


def with_groups(dataset: Dataset, rule: str) -> Dataset:
    r"""Return a data set whose files have groups.

    Args:
        dataset: the data set.
        rule: a CSV file or JSON lines (``path``, ``group``), or a regular expression that is searched in each
            relative path, such as ``person(\d+)``: its first group, or else the whole match, names the group.

    Raises:
        DatasetError: the rule is neither, or leaves a file without a group.
    """
    names = [dataset.relative(index) for index in range(len(dataset.files))]
    groups = _from_csv(Path(rule), names) if rule.endswith(SUFFIXES) else _from_pattern(rule, names)
    return replace(dataset, groups=tuple(groups))


def _from_csv(path: Path, names: list[str]) -> list[str]:
    rows = read_rows(path, ("path", "group"), DatasetError)
    found = {Path(row.cells["path"]).as_posix(): row.cells["group"].strip() for row in rows}
    missing = [name for name in names if not found.get(name)]
    if missing:
        raise DatasetError(f"{path}: no group for {len(missing)} of {len(names)} files, such as {missing[0]}.")
    return [found[name] for name in names]


def _from_pattern(pattern: str, names: list[str]) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DatasetError(f"groups: {pattern!r} is neither a CSV file nor a regular expression ({error}).") from error
    matches = [compiled.search(name) for name in names]
    unmatched = [name for name, match in zip(names, matches, strict=True) if match is None]
    if unmatched:
        raise DatasetError(
            f"groups: {pattern!r} is not found in {len(unmatched)} of {len(names)} paths, such as {unmatched[0]}."
        )
    return [(match[1] if compiled.groups else match[0]) or "" for match in matches if match is not None]
