"""``make fuzz-guided``: atheris looks for inputs that reach new code in the readers of files from elsewhere.

What it collects is kept in ``build/fuzz`` and is where the next run starts. Repeat a finding with ``READER FILE``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

_TESTS = Path(__file__).parents[1]
sys.path.append(str(_TESTS / "toolkit"))
with atheris.instrument_imports(include=["clip_toolkit"]):
    import targets
    from onnx_bytes import EXTERNAL, metadata

CORPUS = _TESTS.parent / "build" / "fuzz"


def _text(data: bytes) -> bytes:
    return data.decode(errors="replace").encode()


def _wire_seeds() -> list[bytes]:
    """Models without weights: one that could be read, and one for each place in which a reference can hide."""
    [text] = targets.TARGETS["document"].seeds()
    return [field + metadata("{}") for field in EXTERNAL.values()] + [metadata(text.decode()) + b"\x3a\0"]


READERS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]] = {
    "wire": (targets.spec, _wire_seeds),
    "document": (lambda data: targets.document(_text(data)), targets.TARGETS["document"].seeds),
    "part": (targets.part, targets.TARGETS["part"].seeds),
}


def main() -> None:
    """Fuzz one reader; does not return: libFuzzer ends the process, with 77 after a finding."""
    parser = argparse.ArgumentParser(prog="tests/fuzz/guided.py", description=__doc__)
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("file", nargs="?", help="one input, instead of looking for more")
    parser.add_argument("--seconds", type=int, default=600, help="how long (default: %(default)s)")
    args = parser.parse_args()
    call, seeds = READERS[args.reader]
    corpus = CORPUS / args.reader
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (corpus / f"seed{number}").write_bytes(seed)
    limits = [f"-max_total_time={args.seconds}", "-timeout=20", "-rss_limit_mb=2048", "-max_len=32768"]
    findings = f"-artifact_prefix={corpus.with_name(args.reader)}-"
    atheris.Setup([sys.argv[0], *limits, findings, args.file or str(corpus)], call)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
