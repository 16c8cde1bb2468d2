"""The map of the house is true: paths that it names exist, and no room or file is missing."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "proxyds"
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`([\w./]+)`", TEXT))
"""Everything in code style that may be a path."""


def list_rooms() -> list[Path]:
    return sorted(path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)


def test_every_path_that_is_named_is_there() -> None:
    paths = {name for name in NAMED if "/" in name}
    assert len(paths) > 40
    assert not {path for path in paths if not any((place / path).exists() for place in (ROOT, PACKAGE))}


def test_every_room_is_named_and_every_file_in_it() -> None:
    files = {name for name in NAMED if re.search(r"\.(py|jinja)$", name)}
    for room in list_rooms():
        assert str(room.relative_to(ROOT)) in NAMED
        (line,) = re.findall(rf"^(?:\| |- )`{room.relative_to(ROOT)}`.*\n(?:  .*\n)*", TEXT, re.MULTILINE)
        there = {path.name for path in (*room.glob("*.py"), *room.glob("*.jinja"))} - {"__init__.py"}
        assert there == set(re.findall(r"`([\w.]+\.(?:py|jinja))`", line)), room
    below = {path.name for path in PACKAGE.rglob("*") if path.suffix in (".py", ".jinja")}
    assert not {Path(name).name for name in files if not (ROOT / name).exists()} - below
    alone = {f"proxyds/{path.name}" for path in PACKAGE.glob("*.py")} - {"proxyds/__main__.py"}
    assert alone <= NAMED


def test_rooms_and_files_are_small() -> None:
    for room in list_rooms():
        assert len([path for path in room.glob("*.py") if path.name != "__init__.py"]) <= 9, room
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 450, path


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= 100


def test_every_decision_is_listed_and_short() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"\]\((?!\.\./)([^)]+)\)", index)
    assert sorted(listed) == sorted(path.name for path in folder.glob("*.md") if path.name != "README.md")
    for name in listed:
        text = (folder / name).read_text(encoding="utf-8")
        assert text.startswith("# ")
        assert "\n**What.** " in text
        assert "\n**Why.** " in text


def test_every_link_of_the_documents_leads_somewhere() -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "cards" / "README.md", ROOT / "CONTRIBUTING.md"]
    for page in pages:
        links = re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
        assert not [link for link in links if not (page.parent / link).exists()], page
