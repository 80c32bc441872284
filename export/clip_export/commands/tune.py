"""``clip-tune``: labelled images in, the head of the fastest file that still decides right out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clip_export.commands import TUNE
from clip_toolkit.terminal import as_command, say, show, write

if TYPE_CHECKING:
    from clip_export.commands.tune_options import TuneCommand

HEAD, PAGE = "head.pt", "tuning.html"


def run(command: TuneCommand) -> int:
    """Search, and write the head and the page; return the exit code."""
    from clip_export.extra import require

    require("report", "matplotlib")
    from clip_export.features.cache import default_folder
    from clip_export.heads.files import save_head
    from clip_export.training.options import DataOptions
    from clip_export.training.preparation import read_dataset
    from clip_export.tuning.page import HEADS, rows, write_page
    from clip_export.tuning.tune import RECORD, tune
    from clip_toolkit.errors import OutputError
    from clip_toolkit.listing import table
    from clip_toolkit.spec.description import lay_out
    from clip_toolkit.spec.licenses import license_rows

    asked = command.examples
    dataset = read_dataset(command.data, DataOptions(asked.task, asked.groups, all_files=asked.all_files))
    try:
        command.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{command.out}: cannot be used as a folder ({error.strerror}). Name another.") from error
    cache = (default_folder() if command.cache else None) if isinstance(command.cache, bool) else command.cache
    try:
        tuned = tune(
            dataset, command.encoders, command.out, command.limits, asked, minutes=command.minutes, cache=cache, say=say
        )
    except KeyboardInterrupt:
        say(f"what was found is in {command.out / RECORD}: the same command goes on from there")
        raise
    say(*tuned.notes)
    write(*table([HEADS, *rows(tuned)]))
    assert tuned.head.encoder is not None  # it was found on one
    write(*lay_out(license_rows(tuned.head.encoder.licenses)))
    for name, text in tuned.head.training.items():
        show(f"{name}: {text}")
    save_head(tuned.head, command.out / HEAD)
    write_page(command.out / PAGE, tuned, command.limits)
    show(f"wrote {command.out / HEAD} and {command.out / PAGE}")
    quantize = "" if tuned.choice.found.precision == "float32" else f" --quantize {tuned.choice.found.precision}"
    show(f"next: clip-export --head {command.out / HEAD}{quantize}")
    return 0


@as_command(TUNE)
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    from clip_export.commands.libraries import prepare_libraries
    from clip_export.commands.tune_options import parse_args

    command = parse_args(argv)
    prepare_libraries()
    return run(command)


if __name__ == "__main__":
    sys.exit(main())
