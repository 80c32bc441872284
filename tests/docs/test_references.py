"""What the documentation refers to is there: files, make targets, public names."""

import re
from pathlib import Path

import clip_export

ROOT = Path(__file__).parents[2]


def test_every_link_leads_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_no_table_has_run_together():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for line in page.read_text(encoding="utf-8").splitlines():
            assert "| --- |" not in line or not line.strip("|-: "), f"{page.name}: {line}"


def test_make_targets_the_readme_names_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^    make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE):
        assert f"\n{target}:" in makefile


def test_the_api_reference_has_every_public_name_of_clip_export():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: clip_export\.(\w+)$", page, re.MULTILINE)) == sorted(clip_export.__all__)
