"""Mutants that keep a structure: JSON documents with other values in some places, and databases with other cells."""

from __future__ import annotations

import copy
import json
import random
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf")),
    *(
        "",
        "a",
        "\0",
        "\ud800",
        "\x1b[31m",
        "../../etc/passwd",
        "9" * 5000,
        "x" * 100_000,
        [],
        {},
        [[]],
        [None],
        {"": None},
    ),
)
_DEPTHS = (3, 40, 120)  # four times the last can still be copied


def json_mutant(document: Any, number: int) -> Any:
    """A copy with up to four changes: a value replaced, removed, doubled, nested, or swapped for another of its own."""
    rng = random.Random(number)  # noqa: S311  # for the same mutants every time, not for secrets
    document = copy.deepcopy(document)
    for _ in range(rng.randint(1, 4)):
        places = list(_places(document))
        if places:
            _change(*rng.choice(places), [holder[key] for holder, key in places], rng)
    return document


def json_bytes(document: Any) -> bytes:
    """The document as JSON, with what JSON does not have written as Python writes it."""
    return json.dumps(document).encode()


def _places(value: Any) -> Any:
    """Each container below a value, and each key or index in it."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


def _change(holder: Any, key: Any, others: list[Any], rng: random.Random) -> None:
    kind = rng.randrange(6)
    if kind <= 1:
        holder[key] = copy.deepcopy(rng.choice(_VALUES))
    elif kind == 2:
        del holder[key]
    elif kind == 3:
        holder[key] = copy.deepcopy(rng.choice(others))
    elif kind == 4:
        for _ in range(rng.choice(_DEPTHS)):
            holder[key] = [holder[key]]
    elif isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    else:
        holder[f"{key} "] = holder[key]


_CELLS = ("NULL", "7", "-1", "1e308", "'text'", "x'00'", "''", "x''", "zeroblob(70000)", "char(55296)")


def database_mutant(content: bytes, number: int) -> bytes:
    """A SQLite database with up to four changes, of cells or of its schema."""
    rng = random.Random(number)  # noqa: S311  # as above
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "database"
        path.write_bytes(content)
        connection = sqlite3.connect(path, isolation_level=None)
        for _ in range(rng.randint(1, 4)):
            try:
                connection.execute(_statement(connection, rng))
            except sqlite3.Error:  # a change that the schema does not allow
                continue
        connection.close()
        return path.read_bytes()


def _statement(connection: sqlite3.Connection, rng: random.Random) -> str:
    table = rng.choice([name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")])
    column = rng.choice([row[1] for row in connection.execute(f"PRAGMA table_info('{table}')")])
    chosen = f"length({column}) % 3 = {rng.randrange(3)}"
    kind = rng.randrange(10)
    if kind == 0:
        return f"ALTER TABLE {table} DROP COLUMN {column}"
    if kind == 1:
        return f"ALTER TABLE {table} RENAME COLUMN {column} TO {column}_"
    if kind == 2:
        return f"DELETE FROM {table} WHERE {chosen}"  # noqa: S608  # to do harm is its purpose
    return f"UPDATE {table} SET {column} = {rng.choice(_CELLS)} WHERE {chosen}"  # noqa: S608  # likewise
