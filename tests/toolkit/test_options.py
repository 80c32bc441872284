"""Dataclasses of options as a command line, and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest

from clip_toolkit.numbers import number, whole
from clip_toolkit.options import Group, Option, Parser, UsageError, parse_options

Captured = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Tuning:
    """A group that may be absent."""

    blocks: Annotated[int, Option("blocks to tune", "--unfreeze", parse=whole())]
    epochs: Annotated[int, Option("passes", "--encoder-epochs", parse=whole())] = 10
    device: str = "cpu"


@dataclass(frozen=True)
class Training:
    """A group."""

    epochs: Annotated[int, Option("passes", parse=whole(), metavar="N")] = 100
    hidden: Annotated[
        tuple[int, ...],
        Option("widths", "--hidden-dim", parse=whole(), nargs="+"),
        Option("no hidden layer", "--linear", const=()),
    ] = (256,)
    calibrate: Annotated[bool, Option("keep the temperature at 1", "--no-calibration", const=False)] = True


@dataclass(frozen=True)
class Command:
    """All options of a command."""

    encoder: Annotated[str, Option("the encoder, 100 % of it")]
    data: Annotated[Path | None, Option("the images", "DATA", parse=Path, nargs="?")] = None
    output: Annotated[Path, Option("what is written", "-o --out", parse=Path)] = Path("head.pt")
    mode: Annotated[str, Option("how", choices=("fast", "exact"))] = "exact"
    share: Annotated[float, Option("a part", parse=number("from 0 to 1", lambda value: 0 <= value <= 1))] = 0.5
    training: Annotated[Training, Group("training")] = Training()
    tuning: Annotated[Tuning | None, Group("fine-tuning", "of the last blocks")] = None

    def __post_init__(self) -> None:
        if self.share == 0 and self.tuning is not None:
            raise UsageError("--share 0 leaves nothing for --unfreeze")


def parse(*arguments: str) -> Command:
    return parse_options(Parser(prog="some-command"), Command, arguments)


def test_what_is_left_out_has_the_defaults_of_the_classes():
    assert parse("--encoder", "tiny") == Command("tiny")


def test_every_kind_of_option():
    given = "photos --encoder e -o h.pt --mode fast --share 0.25 --epochs 3 --hidden-dim 8 4 --no-calibration"
    expected = Command("e", Path("photos"), Path("h.pt"), "fast", 0.25, Training(3, (8, 4), calibrate=False))
    assert parse(*given.split()) == expected
    assert parse("--encoder", "e", "--linear").training.hidden == ()


def test_a_group_that_may_be_absent_is_asked_for_by_its_first_option():
    assert parse("--encoder", "e", "--unfreeze", "2").tuning == Tuning(2)
    assert parse("--encoder", "e", "--unfreeze", "2", "--encoder-epochs", "5").tuning == Tuning(2, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the following arguments are required: --encoder"),
        (("--encoder", "e", "--encoder-epochs", "10"), "--encoder-epochs needs --unfreeze"),
        (
            ("--encoder", "e", "--linear", "--hidden-dim", "3"),
            "argument --hidden-dim: not allowed with argument --linear",
        ),
        (("--encoder", "e", "--mode", "slow"), "argument --mode: invalid choice: 'slow'"),
        (("--encoder", "e", "--share", "nan"), "argument --share: expected a number from 0 to 1, got 'nan'"),
        (("--encoder", "e", "--epochs", "٣"), "argument --epochs: expected a whole number from 1 to 2147483647, got"),
        (("--encoder", "e", "--unfreeze", "1", "--share", "0"), "--share 0 leaves nothing for --unfreeze"),
        (("--encoder", "e", "a", "b\x1b[31m"), "unrecognized arguments: b\\x1b[31m"),
    ],
)
def test_usage_errors_are_one_line_and_exit_code_2(arguments: tuple[str, ...], message: str, capsys: Captured):
    with pytest.raises(SystemExit) as ended:
        parse(*arguments)
    line = capsys.readouterr().err
    assert ended.value.code == 2
    assert line.startswith(f"some-command: {message}")
    assert line.endswith(" (see some-command --help)\n")
    assert line.count("\n") == 1


def test_help_names_groups_and_defaults(capsys: Captured):
    with pytest.raises(SystemExit) as ended:
        parse("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    for part in (
        "--epochs N passes (default: 100)",
        "fine-tuning: of the last blocks",
        "100 % of it",
        "(default: head.pt)",
    ):
        assert part in shown
    assert "device" not in shown  # a field without an option is of the library alone
