"""Figures in README, docs and cards are current, and markers that would not work are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs import figures
from tests.docs.figures import FigureError, find_figure, list_pages, update_pages, write_figures

PAGE = """\
# A page

**What to expect of `easier`** on cifar10: much.

## 5 %

| trained on | tau | samples |
|---|---|---|
| easier | 0.75 [0.62, 0.85] | 7 |
| random | -0.40 [-0.62, 0.85] | 11 |

Less:

| trained on | minus random |
|---|---|
| easier | 0.15 [0.02, 0.29] |

## 2 %

At 2 %:

| trained on | tau |
|---|---|
| easier | 0.69 [0.53, 0.81] |

## No name above the rows

| | tau | less that of random |
|---|---|---|
| random | 0.61 | |
| easier | 0.75 | 0.14 |
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    (tmp_path / "cards" / "study").mkdir(parents=True)
    (tmp_path / "cards" / "study" / "README.md").write_text(PAGE)


def test_every_figure_is_current() -> None:
    assert update_pages(list_pages(), lambda page, text: None) == []


def test_no_marker_makes_its_line_html() -> None:
    """A line that begins with a comment is HTML: nothing else may stand on it."""
    for page in list_pages():
        for line in page.read_text(encoding="utf-8").splitlines():
            if re.match(r"\s*(<!-- figures:|<!-- end -->)", line):
                assert re.fullmatch(r"\s*<!-- (figures: [^>]+|end) -->", line), (page, line)


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("study; No name above the rows; easier; less that of random", "0.14"),
        ("study; 5 %; easier; tau", "0.75 [0.62, 0.85]"),
        ("study; 5 %; easier; tau; value", "0.75"),
        ("study; 5 %; random; tau; value", "-0.40"),
        ("study; 5 %; easier; minus random", "0.15 [0.02, 0.29]"),
        ("study; 2 %; easier; tau; value", "0.69"),
        ("study; At 2 %:; easier; tau; value", "0.69"),
        ("study; 5 %; every; samples; range", "7 to 11"),
        ("study; 5 %; every; samples; up to 7", "1"),
        ("study; What to expect", "much."),
        ("study; At 2 %:", "| trained on | tau |\n|---|---|\n| easier | 0.69 [0.53, 0.81] |"),
    ],
)
def test_a_name_finds_its_figure(study: None, name: str, figure: str) -> None:
    assert find_figure(name) == figure


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none; 5 %; easier; tau", "must name a page"),
        ("study; 7 %; easier; tau", "must name a heading"),
        ("study; 5 %; hardest; tau", "must name a row and a column"),
        ("study; 5 %; easier; regret", "must name a row and a column"),
        ("study; No name above the rows; random; less that of random", "this one is empty"),
        ("study; No name above the rows; random; less that of random; value", "this one is empty"),
    ],
)
def test_a_name_of_nothing_is_refused(study: None, name: str, said: str) -> None:
    with pytest.raises(FigureError, match=said):
        write_figures(f"a <!-- figures: {name} -->0.1<!-- end --> b")


def test_figures_go_into_lines_and_between_them(study: None, tmp_path: Path) -> None:
    text = """\
Tau is <!-- figures: study; 5 %; easier; tau; value -->?<!-- end -->.
- A table:
  <!-- figures: study; At 2 %: -->
  old
  <!-- end -->
"""
    written = """\
Tau is <!-- figures: study; 5 %; easier; tau; value -->0.75<!-- end -->.
- A table:
  <!-- figures: study; At 2 %: -->
  | trained on | tau |
  |---|---|
  | easier | 0.69 [0.53, 0.81] |
  <!-- end -->
"""
    assert write_figures(text) == written
    assert write_figures(written) == written
    page, kept = tmp_path / "page.md", []
    page.write_text(text)
    assert update_pages([page], lambda page, text: kept.append(text)) == [page]
    assert kept == [written]


@pytest.mark.parametrize(
    "text",
    [
        "<!-- figures: study; 5 %; easier; tau -->0.1",
        "<!-- figures: study; 5 %; easier; tau -->0.1 <!-- figures: study; 5 %; easier; tau -->0.1<!-- end -->",
    ],
)
def test_a_marker_that_is_not_closed_is_refused(study: None, tmp_path: Path, text: str) -> None:
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(FigureError, match=r"page\.md: figures: .*must be closed"):
        update_pages([tmp_path / "page.md"], lambda page, text: None)
