"""The model card of a checkpoint, README.md, of which the licence is read and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CardData
from huggingface_hub.repocard import RepoCard, metadata_save

from clip_toolkit.spec.licenses import License
from clip_toolkit.text.tokenization import is_valid_unicode

CARD = "README.md"

_MOST_BYTES = 2**20
_LONGEST = 500
"""Characters of a licence's name or link."""


@dataclass(frozen=True)
class ModelCard:
    """What a model card states.

    Attributes:
        licenses: of the weights; none where the card, if there is one, states none.
        problem: why a card could not be read, or None.
    """

    licenses: tuple[License, ...] = ()
    problem: str | None = None

    @classmethod
    def of_folder(cls, folder: Path) -> ModelCard:
        """Read the card of a checkpoint's folder; features do not depend on it, and so none is refused."""
        try:
            with (folder / CARD).open("rb") as file:
                text = file.read(_MOST_BYTES).decode("utf-8-sig", errors="replace")
        except FileNotFoundError:
            return cls()
        except OSError as error:
            return cls(problem=_problem(folder, error.strerror))
        if not text.lstrip().startswith("---"):
            return cls()
        try:
            return cls(_licenses(RepoCard(text, ignore_metadata_errors=True).data))
        except Exception as error:  # of YAML, and of values that a card's class did not expect
            return cls(problem=_problem(folder, " ".join(str(error).split())[:100]))


def save_card(licenses: tuple[License, ...], origin: str, folder: Path) -> None:
    """Write the card of a checkpoint that was made of another one, whose licences stay; none for no licence.

    Raises:
        OSError: it cannot be written.
    """
    if not licenses:
        return
    first, path = licenses[0], folder / CARD
    path.write_text(f"\nFine-tuned from {origin}, whose licence it has.\n", encoding="utf-8")
    if len(licenses) > 1:  # a card has one name and one link
        metadata_save(path, {"license": [item.name or item.id for item in licenses]})
    else:
        known = {"license": first.id, "license_name": first.name, "license_link": first.link}
        metadata_save(path, {key: value for key, value in known.items() if value is not None})


def _licenses(metadata: CardData) -> tuple[License, ...]:
    stated = metadata.get("license")
    if stated is None:
        return ()
    name, link = (metadata.get(key) for key in ("license_name", "license_link"))
    optional = [None if value is None else _text(value) for value in (name, link)]
    return tuple(License(_text(item), *optional) for item in (stated if isinstance(stated, list) else [stated]))


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST or not is_valid_unicode(value):
        raise ValueError(f"the licence is {str(value)[:40]!a}")
    return value


def _problem(folder: Path, reason: str | None) -> str:
    return f"{folder / CARD}: the licence that it may state cannot be read ({reason}); it counts as not stated"
