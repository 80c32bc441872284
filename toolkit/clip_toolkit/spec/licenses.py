"""The licence of an encoder's weights, as its model card states it, and what licences that are known here forbid."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_FORBIDDEN = (
    (r"apple-amlr", "allows research alone: no commercial use, no product development, no use in a product"),
    (r"cc-by-nc(-.*)?", "forbids commercial use"),
    (r".*non-?commercial.*", "forbids commercial use, by its name"),
    (r".*research-only.*", "allows research alone, by its name"),
)
"""Of identifiers and names as the hub's model cards have them. apple-amlr is the Apple Machine Learning Research Model
licence, by its definition of Research Purposes, which holds for what is made of a model, too; apple-ascl, the Apple
Sample Code License, has no such clause. cc-by-nc: section 2 of the Creative Commons NonCommercial licences."""


@dataclass(frozen=True)
class License:
    """A licence that a model card states.

    Attributes:
        id: the card's ``license``: an identifier of the hub, such as ``mit``, or ``other``.
        name: the card's ``license_name``, or None.
        link: the card's ``license_link``, or None.
        base: the checkpoint that has it, where that is the one that a LoRA adapter is merged into; else None.
    """

    id: str
    name: str | None = None
    link: str | None = None
    base: str | None = None

    @property
    def restriction(self) -> str | None:
        """What it is known to forbid, as a sentence without its subject; None says nothing of what it allows."""
        names = [name.casefold() for name in (self.id, self.name) if name]
        return next((text for form, text in _FORBIDDEN if any(re.fullmatch(form, name) for name in names)), None)

    def __str__(self) -> str:
        """As people read it."""
        name = f" ({self.name})" if self.name else ""
        return f"{self.id}{name}{f', {self.link}' if self.link else ''}"


def license_rows(licenses: Iterable[License]) -> Iterator[tuple[str, str]]:
    """Give rows of a description: each licence, and in a row without a name of its own what it forbids."""
    for item in licenses:
        yield "licence", f"{item} of {item.base}" if item.base else str(item)
        if item.restriction is not None:
            yield "", f"it {item.restriction}; a model file holds the encoder"


def license_rows_of_file(licenses: Iterable[License]) -> Iterator[tuple[str, str]]:
    """Give the same of a model file, which also says where it has none."""
    yield from [*license_rows(licenses)] or [("licence", "not stated in this file; see the encoder's model card")]
