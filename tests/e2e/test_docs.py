"""The documentation: its programs run as they stand, its commands and links exist, its tables are those of the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT, WAIT_S

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "dashboards/README.md", *sorted(DOCS.glob("*.md"))]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


def blocks(page: Path, language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [text for kind, text in fenced if kind == language]


def run(program: str, folder: Path) -> str:
    (folder / "watched.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-W", "error", "watched.py"], cwd=folder, capture_output=True, text=True, timeout=WAIT_S
    )
    assert done.returncode == 0, f"{program}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def tutorial(tmp_path: Path) -> list[str]:
    """The tutorial's programs; the first one is the module that the others import."""
    shop, *programs = blocks(DOCS / "tutorial.md", "python")
    (tmp_path / "shop.py").write_text(shop)
    return programs


def test_the_tutorial_finds_the_line(tutorial: list[str], tmp_path: Path) -> None:
    told = blocks(DOCS / "tutorial.md", "")
    assert run(tutorial[0], tmp_path) == told[0]
    assert run(tutorial[1], tmp_path).startswith("http://127.0.0.1:")
    assert run(tutorial[2], tmp_path) == told[1]


def test_the_tutorial_in_a_worker(tutorial: list[str], tmp_path: Path) -> None:
    """What gunicorn's hook does, with what gunicorn gives it."""
    call = "from types import SimpleNamespace\nimport shop\nworker = SimpleNamespace(age=3)\npost_worker_init(worker)\n"
    check = "shop.main(20)\nworker.memwatch.flush()\nprint(worker.memwatch.get_stats()['delivered'])\n"
    assert run(tutorial[3] + call + check, tmp_path) == "1\n"


def test_troubleshooting_runs(tmp_path: Path) -> None:
    (program,) = blocks(DOCS / "troubleshooting.md", "python")
    assert run(program, tmp_path) == "1 0 1\n"


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_exist(page: Path) -> None:
    """Each `python -m memwatch COMMAND` and each `make TARGET` that a page names."""
    text = page.read_text(encoding="utf-8")
    shown = subprocess.run([sys.executable, "-m", "memwatch", "--help"], capture_output=True, text=True, check=True)
    commands = set(re.findall(r"^    (\w+) ", shown.stdout, re.MULTILINE))
    for command in re.findall(r"-m memwatch ([a-z]+)\b", text):
        assert command in commands, command
    makefile = (ROOT / "Makefile").read_text()
    named = re.findall(r"`make ([a-z][a-z0-9-]*)\b", text)
    for target in [*named, *re.findall(r"^make ([a-z][a-z0-9-]*)\b", "".join(blocks(page, "bash")), re.MULTILINE)]:
        assert re.search(rf"^(?:[a-z -]+ )?{re.escape(target)}(?: [a-z -]+)?:", makefile, re.MULTILINE), target


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in DOCS.glob("*.md") if page.name != "README.md" and f"({page.name}" not in index] == []


def test_the_reference_is_that_of_the_tables() -> None:
    done = subprocess.run([sys.executable, "scripts/reference.py", "--check"], cwd=ROOT)
    assert done.returncode == 0, "run .venv/bin/python scripts/reference.py"
