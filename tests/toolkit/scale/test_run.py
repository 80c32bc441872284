"""Runs into a folder of parts: equal to clip-infer, resumed after any end, refused where they would be wrong."""

import json
import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from clip_scale import BatchClassifier, LocalEngine, Source, Summary, WorkerError, run
from clip_scale.commands.scale import main
from clip_scale.part_worker import Done, PartWorker, Task
from clip_toolkit import ModelError
from clip_toolkit.commands.infer import main as infer
from clip_toolkit.spec.tasks import SINGLE_LABEL, TASKS

Inferred = Callable[..., list[dict[str, Any]]]
Written = Callable[[], list[dict[str, Any]]]
Captured = pytest.CaptureFixture[str]
HERE = LocalEngine(workers=1)
NEEDS_PYARROW = pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs the parquet extra")


@pytest.fixture
def command(models: dict[str, Path], photos: Path, tmp_path: Path) -> Callable[..., int]:
    """``clip-scale run`` in this process, of the photos into ``out``."""

    def scale(*options: object, source: object = photos, model: str = SINGLE_LABEL) -> int:
        fixed = ["--format", "jsonl", "--workers", "1", "--part-size", "8", "--model", models[model]]
        return main(["run", str(source), str(tmp_path / "out"), *map(str, [*fixed, *options])])

    return scale


@pytest.mark.parametrize("task", TASKS)
def test_the_parts_are_the_records_of_clip_infer(
    task: str,
    command: Callable[..., int],
    written: Written,
    models: dict[str, Path],
    photos: Path,
    inferred: Inferred,
    tmp_path: Path,
):
    assert command(model=task) == 1  # for one file is no image
    assert written() == inferred(models[task], photos)
    summary = json.loads((tmp_path / "out/_summary.json").read_text(encoding="utf-8"))
    assert (summary["images"], summary["errors"], summary["providers"]) == (21, 1, {"CPUExecutionProvider": 20})


def test_parquet_parts_are_one_table_with_the_rows_and_types_of_clip_infer(models: dict[str, Path], photos: Path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the parquet extra")
    model = ["--model", str(models[SINGLE_LABEL])]
    main(["run", str(photos), "out", "--workers", "1", "--part-size", "8", *model])
    infer([str(photos), "--output", "all.parquet", *model])
    assert parquet.read_table("out").equals(parquet.read_table("all.parquet"))
    main(["run", str(photos), "more", "--workers", "1", "--embedding", "float16", *model])
    rows = parquet.read_table("more").column("embedding")
    assert (str(rows.type), rows.null_count) == ("fixed_size_list<element: halffloat>[3]", 1)


def test_texts_of_a_manifest(
    command: Callable[..., int],
    written: Written,
    models: dict[str, Path],
    photos: Path,
    inferred: Inferred,
):
    (photos / "list.csv").write_text("path,text\n01.png,red\n02.png,red circle\n", encoding="utf-8")
    assert command("--text-column", "text", source=photos / "list.csv", model="fused") == 0
    assert written() == inferred(models["fused"], "--texts", photos / "list.csv")


class Dying:
    """An engine that ends after some parts."""

    def __init__(self, parts: int) -> None:
        self.parts = parts

    def __call__(self, worker: PartWorker, tasks: Iterable[Task], *_: object) -> Generator[Done]:
        for count, task in enumerate(tasks):
            if count == self.parts:
                raise WorkerError("killed")
            yield worker(task)


class Backwards:
    """An engine that ends with the first part."""

    def __call__(self, worker: PartWorker, tasks: Iterable[Task], *_: object) -> Generator[Done]:
        yield from map(worker, reversed(list(tasks)))


@pytest.mark.parametrize("finished", range(4))
def test_a_broken_run_goes_on_with_any_engine(finished: int, models: dict[str, Path], photos: Path, tmp_path: Path):
    source, classify = Source((str(photos),), part_size=8), BatchClassifier(models[SINGLE_LABEL])
    whole = run(source, tmp_path / "whole", classify, HERE, form="jsonl")
    told = []
    try:
        run(source, tmp_path / "out", classify, Dying(finished), form="jsonl")
    except WorkerError:
        assert not (tmp_path / "out/_summary.json").exists()
    resumed = run(source, tmp_path / "out", classify, Backwards(), form="jsonl", resume=True, on_part=told.append)
    assert len(told) == 3 - finished
    assert resumed.to_json() == whole.to_json()
    parts = {path.name: path.read_bytes() for path in (tmp_path / "whole").glob("part-*")}
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("part-*")} == parts


def test_a_part_without_a_line_and_a_line_without_a_part_are_done_again(
    command: Callable[..., int], written: Written, tmp_path: Path, capsys: Captured
):
    command()
    before = written()
    ledger = tmp_path / "out/_ledger"
    ledger.write_bytes(ledger.read_bytes()[:-3])
    (tmp_path / "out/part-00000000.jsonl").unlink()
    capsys.readouterr()
    assert command("--resume") == 1
    assert "21 images, 1 errors; 13 now" in capsys.readouterr().err
    assert written() == before
    assert command("--resume") == 1
    assert "; 0 now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "holds a run already. Continue it with --resume"),
        (["--resume", "--top-k", "1"], "from a run with another top_k: 3, now 1"),
        (["--resume", "--part-size", "16"], "another part_size: 8, now 16"),
        (["--resume", "--allow-truncated"], "another allow_truncated"),
        pytest.param(["--resume", "--format", "parquet"], "another format", marks=NEEDS_PYARROW),
    ],
)
def test_a_sink_of_another_run_is_refused(
    options: list[str], message: str, command: Callable[..., int], tmp_path: Path, capsys: Captured
):
    command()
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    capsys.readouterr()
    assert command(*options) == 1
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize("change", ["model", "image", "fewer"])
def test_a_run_of_other_inputs_is_refused_before_any_work(
    change: str, command: Callable[..., int], models: dict[str, Path], photos: Path, tmp_path: Path, capsys: Captured
):
    command()
    (tmp_path / "out/part-00000002.jsonl").unlink()
    if change == "model":
        models[SINGLE_LABEL].write_bytes(models["multi-label"].read_bytes())
    elif change == "image":
        (photos / "00.png").rename(photos / "00b.png")
    else:
        for name in range(8, 20):
            (photos / f"{name:02}.png").unlink()
    assert command("--resume") == 1
    expected = {"model": "another sha256", "image": "part 0 has other images", "fewer": "part 1 has other images"}
    assert expected[change] in capsys.readouterr().err
    assert not (tmp_path / "out/part-00000002.jsonl").exists()


def test_a_source_with_fewer_parts_is_refused(command: Callable[..., int], photos: Path, capsys: Captured):
    command()
    for name in range(15, 20):
        (photos / f"{name:02}.png").unlink()
    assert command("--resume") == 1
    assert "it has 2 parts, and the ledger one of the number 2" in capsys.readouterr().err


def test_a_folder_of_something_else_and_a_file_are_refused(
    command: Callable[..., int], tmp_path: Path, capsys: Captured
):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").touch()
    assert command("--resume") == 1
    assert "is not empty, and holds no run" in capsys.readouterr().err
    (tmp_path / "out/mine.txt").unlink()
    (tmp_path / "out").rmdir()
    (tmp_path / "out").touch()
    assert command() == 1
    assert "out: is no folder" in capsys.readouterr().err


def test_a_sink_at_a_url_is_not_taken_for_a_folder(models: dict[str, Path], photos: Path, capsys: Captured):
    arguments = ["run", str(photos), "s3://bucket/out", "--model", str(models[SINGLE_LABEL]), "--format", "jsonl"]
    assert main(arguments) == 1
    assert "is a URL. Name a folder of this machine" in capsys.readouterr().err
    assert not Path("s3:").exists()


def test_too_many_errors_end_a_run_that_can_go_on(command: Callable[..., int], written: Written, capsys: Captured):
    assert command("--max-errors", 0) == 1
    assert "1 of 16 images failed, more than --max-errors 0" in capsys.readouterr().err
    assert len(written()) == 16
    assert command("--max-errors", 1, "--resume") == 1
    assert len(written()) == 21


def test_sources_without_images(command: Callable[..., int], tmp_path: Path, capsys: Captured):
    (tmp_path / "empty").mkdir()
    assert command(source=tmp_path / "empty") == 1
    assert "empty: there are no images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_usage_errors(command: Callable[..., int], capsys: Captured):
    for option in (["--part-size", "12"], ["--max-errors", "-1"], ["--engine", "none"]):
        with pytest.raises(SystemExit, match="2"):
            command(*option)
    assert "--part-size: expected a multiple of the batch size, 8" in capsys.readouterr().err


def test_stopped_between_parts(models: dict[str, Path], photos: Path, tmp_path: Path):
    source, classify, told = Source((str(photos),), part_size=8), BatchClassifier(models[SINGLE_LABEL]), []
    run(source, tmp_path / "out", classify, HERE, form="jsonl", on_part=told.append, stopped=lambda: len(told) == 2)
    assert len(told) == 2
    assert not (tmp_path / "out/_summary.json").exists()


@pytest.fixture
def _imports_no_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever script started the tests: a new process would run it again if it has no guard."""
    monkeypatch.setattr("__main__.__file__", None, raising=False)


@pytest.mark.usefixtures("_imports_no_script")
def test_processes_share_the_work_until_one_is_killed(
    command: Callable[..., int], written: Written, models: dict[str, Path], photos: Path, inferred: Inferred
):
    source = Source((str(photos),), part_size=1)
    classify = BatchClassifier(models[SINGLE_LABEL], batch_size=1)

    def kill(_: Summary) -> None:
        for process in multiprocessing.active_children():
            process.kill()

    with pytest.raises(WorkerError, match=r"a worker process was killed.*--resume"):
        run(source, Path("out"), classify, LocalEngine(2), form="jsonl", on_part=kill)
    assert command("--workers", 2, "--resume", "--top-k", 1, "--part-size", 1, "--batch-size", 1) == 1
    assert written() == [row | {"top": row["top"][:1]} for row in inferred(models[SINGLE_LABEL], photos)]
    assert not multiprocessing.active_children()


def test_a_model_that_workers_cannot_read_is_named_once(models: dict[str, Path], photos: Path):
    worker = PartWorker(BatchClassifier(models[SINGLE_LABEL]), "jsonl")
    models[SINGLE_LABEL].unlink()
    tasks = list(enumerate(Source((str(photos),), part_size=8).parts()))
    with pytest.raises(ModelError, match="there is no such model file on this machine"):
        list(HERE(worker, tasks))


def test_help_imports_no_engine():
    code = "import sys; sys.argv[1:] = ['run', '--help']\nfrom clip_scale.commands.scale import main\n"
    code += "try: main()\nfinally: print([name for name in ('onnxruntime', 'pyarrow', 'ray') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[]"
