"""Frozen dataclasses as the one definition of a command's options, turned into arguments and back.

A field says all about its option, and the defaults of the class are those of the command line:

    @dataclass(frozen=True)
    class Pace:
        epochs: Annotated[int, Option("passes over the images", parse=whole(), metavar="N")] = 10
        resume: Annotated[bool, Option("continue an interrupted run")] = False

A field without a default is required. Several options of a field exclude one another. A field annotated with `Group`
holds another such class; if it may be ``None``, its first option asks for it, and the others need that one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, NoReturn, TypeVar, get_args, get_type_hints

from clip_toolkit.terminal import printable, write
from clip_toolkit.version import __version__

_Options = TypeVar("_Options")
_ABSENT: Any = object()


class UsageError(ValueError):
    """Options that do not go together: on a command line a usage error, with exit code 2."""


@dataclass(frozen=True)
class Option:
    """An option of a field.

    Attributes:
        help: what it is for; the field's default is appended.
        flags: its names, such as ``-o --output``; without dashes that of a positional argument; empty: the field's.
        parse: from the text of a value to the value; a ValueError says what was expected.
        choices: the values that are allowed.
        metavar: how help names the value.
        nargs: as in argparse.
        const: the value that the bare flag stands for.
    """

    help: str
    flags: str = ""
    parse: Callable[[str], Any] = str
    choices: Sequence[str] | None = None
    metavar: str | None = None
    nargs: str | None = None
    const: Any = _ABSENT


@dataclass(frozen=True)
class Group:
    """A nested class of options.

    Attributes:
        title: the heading of its options in ``--help``.
        description: what stands below that.
        without: flags of other options that do not go with a group which may be ``None``, and the reason.
    """

    title: str
    description: str | None = None
    without: Mapping[str, str] | None = None


@dataclass(frozen=True)
class _Field:
    name: str
    kind: Any
    options: tuple[Option, ...]
    group: Group | None
    default: Any

    @property
    def destination(self) -> str:
        """Where argparse keeps the value: by the option's name, so that classes may share options, and not fields."""
        flags = self.options[0].flags.split()
        return _destination(flags[-1]) if flags else self.name

    @property
    def flag(self) -> str:
        return f"--{self.destination.replace('_', '-')}"

    @property
    def nested(self) -> Any:
        """The class of a group."""
        return next((kind for kind in get_args(self.kind) if kind is not type(None)), self.kind)


class Parser(argparse.ArgumentParser):
    """An argument parser with ``--version``, whose usage errors are one line."""

    def __init__(self, **settings: Any) -> None:
        """Take the settings of argparse."""
        super().__init__(**settings)
        self.add_argument("--version", action="version", version=f"{self.prog.split()[0]} {__version__}")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print help, version or error; argparse itself would pass over a help that cannot be written."""
        if file is sys.stdout:
            write(message.rstrip("\n"))
        else:
            super()._print_message(message, file)

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(2, f"{self.prog}: {printable(message)} (see {self.prog} --help)\n")


def add_options(parser: argparse.ArgumentParser, options: type[Any]) -> None:
    """Add the arguments of a class of options."""
    _add(parser, parser, options, set(), required=True)


def read_options(parser: argparse.ArgumentParser, options: type[_Options], parsed: argparse.Namespace) -> _Options:
    """Build the options from parsed arguments; options that do not go together are a usage error."""
    try:
        return _build(options, vars(parsed))
    except UsageError as error:
        parser.error(str(error))


def parse_options(parser: Parser, options: type[_Options], argv: Sequence[str] | None = None) -> _Options:
    """Parse a command line that consists of one class of options; usage errors exit with code 2."""
    add_options(parser, options)
    return read_options(parser, options, parser.parse_args(argv))


def parse_command(
    parser: Parser, commands: Mapping[str, tuple[type[_Options], str]], argv: Sequence[str] | None = None
) -> _Options:
    """Parse a command line that names a command first; usage errors exit with code 2.

    Args:
        parser: its epilog is every command's.
        commands: the class of options and the help of each, by name.
        argv: the arguments, by default those of the process.
    """
    places = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parsers = {name: places.add_parser(name, help=text, epilog=parser.epilog) for name, (_, text) in commands.items()}
    for name, (options, _) in commands.items():
        add_options(parsers[name], options)
    parsed = parser.parse_args(argv)
    return read_options(parsers[parsed.command], commands[parsed.command][0], parsed)


def _fields(options: type[Any]) -> Iterator[_Field]:
    """Yield the fields of a class that the command line knows."""
    hints = get_type_hints(options, include_extras=True)
    for field in fields(options):
        kind, *notes = get_args(hints[field.name]) if hasattr(hints[field.name], "__metadata__") else [None]
        described = tuple(note for note in notes if isinstance(note, Option))
        group = next((note for note in notes if isinstance(note, Group)), None)
        if described or group:
            yield _Field(field.name, kind, described, group, field.default)


def _add(parser: argparse.ArgumentParser, place: Any, options: type[Any], seen: set[str], *, required: bool) -> None:
    for field in _fields(options):
        if field.group is not None:
            group = parser.add_argument_group(field.group.title, field.group.description)
            _add(parser, group, field.nested, seen, required=required and field.default is not None)
        elif field.destination not in seen:
            seen.add(field.destination)
            needed = required and field.default is MISSING
            among = place if len(field.options) == 1 else place.add_mutually_exclusive_group(required=needed)
            for option in field.options:
                among.add_argument(*_names(field, option), **_settings(field, option, required=needed))


def _names(field: _Field, option: Option) -> list[str]:
    return option.flags.split() or [field.flag]


def _settings(field: _Field, option: Option, *, required: bool) -> dict[str, Any]:
    """Return the keyword arguments of ``add_argument``."""
    shown = field.default not in (None, MISSING) and type(field.default) not in (bool, tuple)
    text = option.help + (f" (default: {field.default})" if shown and option.const is _ABSENT else "")
    settings: dict[str, Any] = {"help": text.replace("%", "%%"), "default": _ABSENT}
    if option.flags and not option.flags.startswith("-"):
        settings["metavar"] = option.metavar or option.flags
    else:
        settings |= {"dest": field.destination} | ({"required": True} if required and len(field.options) == 1 else {})
    if field.kind is bool:
        return settings | {"action": "store_const", "const": option.const is _ABSENT or option.const}
    if option.const is not _ABSENT and option.nargs is None:
        return settings | {"action": "store_const", "const": option.const}
    const = {} if option.const is _ABSENT else {"const": option.const}
    metavar = {} if option.metavar is None else {"metavar": option.metavar}
    return (
        settings
        | {"type": _explained(option.parse), "choices": option.choices, "nargs": option.nargs}
        | metavar
        | const
    )


def _explained(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return the same parser with its own words for argparse to print."""

    def read(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _build(options: type[_Options], parsed: dict[str, Any]) -> _Options:
    values = {}
    for field in _fields(options):
        if field.group is not None:
            if field.default is not None or _is_asked_for(field, parsed):
                values[field.name] = _build(field.nested, parsed)
        elif parsed.get(field.destination, _ABSENT) is not _ABSENT:
            value = parsed[field.destination]
            values[field.name] = tuple(value) if isinstance(value, list) else value
    return options(**values)


def _is_asked_for(group: _Field, parsed: dict[str, Any]) -> bool:
    """Whether the first option of a group was given; the others alone are a usage error."""
    first, *others = _fields(group.nested)
    if parsed[first.destination] is _ABSENT:
        for field in others:
            if parsed[field.destination] is not _ABSENT:
                raise UsageError(f"{field.flag} needs {first.flag}")
        return False
    for flag, reason in ((group.group and group.group.without) or {}).items():
        if parsed[_destination(flag)] not in (_ABSENT, ()):  # as --linear leaves --hidden-dim
            raise UsageError(f"{flag} does not go with {first.flag}" + (f": {reason}" if reason else ""))
    return True


def _destination(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")
