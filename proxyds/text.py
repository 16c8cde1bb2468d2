"""Names that are text to read and nothing else: they reach cards, terminals and web pages."""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator
from typing import Any

_CODE = re.compile(r"<[A-Za-z/!?]|\{\{|\{%|\{#|javascript:", re.IGNORECASE)
"""Of HTML and of templates."""
_ODD_BREAKS = "\u2028\u2029"
"""Separators of lines and paragraphs, which some readers take for line feeds."""
_TURNED_TEXT = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that make text show in another order than it has."""

MAX_SUGGESTED = 20
"""Names that a message lists, at most."""


def find_active_text(text: str) -> str | None:
    """What makes a name more than text to read, in words; None where it is plain.

    It may hold no HTML, no code of templates, no characters that steer a terminal, turn the order of letters or break lines oddly.
    """
    if _CODE.search(text):
        return "HTML or template code"
    if any(unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\n\t" for letter in text):
        return "control characters"
    if any(letter in text for letter in _ODD_BREAKS):
        return "odd line breaks"
    if any(letter in text for letter in _TURNED_TEXT):
        return "characters that turn the order of letters"
    return None


def make_plain(text: str) -> str:
    """What somebody else's program or file system said, as plain text that looks the same."""
    text = "".join(
        "?" if unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\n\t" else letter for letter in text
    )
    text = text.translate(dict.fromkeys(map(ord, _TURNED_TEXT + _ODD_BREAKS), "?"))
    return _CODE.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


def first_line(error: BaseException, hide: Callable[[str], str] = str) -> str:
    """The first line of what an error says, 300 letters at most; its kind where it says nothing.

    Args:
        error: The error.
        hide: Takes out of a text what must not be shown, such as a token.
    """
    said = hide(str(error))
    return next((line.strip() for line in said.splitlines() if line.strip()), type(error).__name__)[:300]


def short_json(value: object) -> str:
    """Shows a value as JSON, 60 letters at most."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def suggest_names(name: str, names: Collection[str]) -> str:
    """Says for a message which names a mistyped one may stand for: the nearest, and all of them; of many the five nearest."""
    if len(names) <= MAX_SUGGESTED:
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        return (f"did you mean `{nearest[0]}`? " if nearest else "") + "known: " + ", ".join(names)
    return "near: " + ", ".join(difflib.get_close_matches(name, names, n=5, cutoff=0.4) or list(names)[:5])


def iter_texts(held: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text below a JSON value, keys too, with its place."""
    if isinstance(held, str):
        yield place, held
    elif isinstance(held, dict):
        for key, value in held.items():
            yield (*place, key), key
            yield from iter_texts(value, (*place, key))
    elif isinstance(held, list | tuple):
        for number, value in enumerate(held):
            yield from iter_texts(value, (*place, str(number)))


def duration(seconds: float) -> str:
    """A time for people: `0.4 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def with_prefix(value: float, unit: str) -> str:
    """A quantity for people: `31.4 GFLOP`, `2.1 MB`."""
    for factor, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def show_value(value: object) -> str:
    """A parameter or setting: `3`, `0.5`, `true`, `3-3-5` for a value with an entry for each stage."""
    if isinstance(value, list | tuple):
        return "-".join(map(show_value, value))
    if isinstance(value, dict):
        return "-".join(f"{name}={show_value(held)}" for name, held in value.items()) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
