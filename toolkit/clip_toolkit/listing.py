"""Records as a table, CSV, JSON or JSON lines, in which foreign text stays in its cell."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from clip_toolkit.terminal import is_unseen, printable, takes_any_text

FORMATS = ("table", "json", "jsonl", "csv")

Rows: TypeAlias = Iterable[Sequence[Any]]
"""Rows of cells, the first of them the headings."""

_FORMULA = tuple("=+-@\t\r")  # https://owasp.org/www-community/attacks/CSV_Injection


@dataclass(frozen=True)
class Style:
    """How records are written.

    Attributes:
        form: one of `FORMATS`.
        for_terminal: escape in CSV what a terminal would obey; JSON and tables always do.
        ascii_only: keep JSON to ASCII, for an output of another encoding than UTF-8.
        quote_formulas: put ``'`` before text in CSV that a spreadsheet would compute.
    """

    form: str
    for_terminal: bool = False
    ascii_only: bool = False
    quote_formulas: bool = False

    @classmethod
    def of_output(cls, form: str, *, quote_formulas: bool = False) -> Style:
        """Give the style that suits standard output as it is now."""
        on_terminal = sys.stdout is not None and sys.stdout.isatty()
        return cls(form, on_terminal, not takes_any_text(), quote_formulas)

    def lines(
        self,
        records: Iterable[dict[str, Any]],
        flat: Callable[[Iterable[dict[str, Any]]], Rows],
        grid: Callable[[Iterable[dict[str, Any]]], Rows],
    ) -> Iterator[str]:
        """Give lines of text, as early as the form allows: ``table`` and ``json`` need all records first.

        Args:
            records: what is listed.
            flat: the rows of CSV.
            grid: the rows of the table.
        """
        if self.form == "jsonl":
            return (json_text(item, ascii_only=self.ascii_only) for item in records)
        if self.form == "json":
            return iter([json_text(list(records), ascii_only=self.ascii_only, indent=2)])
        return map(self._csv_line, flat(records)) if self.form == "csv" else table(grid(records))

    def _csv_line(self, cells: Sequence[Any]) -> str:
        buffer = io.StringIO()
        csv.writer(buffer).writerow(map(self._csv_cell, cells))  # its own end of line, or it would not quote those
        return buffer.getvalue().removesuffix("\r\n")

    def _csv_cell(self, cell: Any) -> Any:
        if not isinstance(cell, str):
            return cell
        quoted = f"'{cell}" if self.quote_formulas and cell.startswith(_FORMULA) else cell
        return printable(quoted) if self.for_terminal else quoted


def json_text(value: Any, *, ascii_only: bool = False, indent: int | None = None) -> str:
    """Write JSON that may be shown."""
    return shown_json(json.dumps(value, ensure_ascii=ascii_only, indent=indent))


def shown_json(text: str) -> str:
    """Escape in JSON what a terminal would obey: JSON allows it for any character of a string."""
    if text.isascii():
        return text  # json escapes the control characters of ASCII itself
    return "".join(json.dumps(letter)[1:-1] if is_unseen(letter) and letter != "\n" else letter for letter in text)


def table(rows: Rows) -> Iterator[str]:
    """Align the cells of rows in columns, two spaces apart."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
