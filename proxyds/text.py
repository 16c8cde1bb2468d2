"""Text for people: names of strangers made harmless, near names suggested, durations and quantities as people read them."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

MAX_SUGGESTED = 20
"""Names that a message lists, at most."""

_CODE = re.compile(r"<[A-Za-z/!?]|\{\{|\{%|\{#|javascript:", re.IGNORECASE)
_CONTROLS = "\0-\b\v-\x1f\x7f-\x9f\ud800-\udfff"
_ODD_BREAKS = "\u2028\u2029"
_REORDERING = "\u202a-\u202e\u2066-\u2069"
_ACTIVE = {
    "HTML or template code": _CODE,
    "control characters": re.compile(f"[{_CONTROLS}]"),
    "odd line breaks": re.compile(f"[{_ODD_BREAKS}]"),  # separators of lines and paragraphs
    "characters that turn the order of letters": re.compile(f"[{_REORDERING}]"),
}
"""What makes text more than text to read, in words and as a pattern."""
_ODD = re.compile(f"[{_CONTROLS}{_ODD_BREAKS}{_REORDERING}]")


def find_active_text(text: str) -> str | None:
    """Says in words what makes a name more than text to read; None where it is plain.

    A plain name holds no HTML, no code of templates, no characters that steer a terminal, turn the order of letters or break
    lines oddly.
    """
    return next((what for what, pattern in _ACTIVE.items() if pattern.search(text)), None)


def make_plain(text: str) -> str:
    """Makes what somebody else's program or file system said plain text that looks the same."""
    return _CODE.sub(lambda code: f"{code[0][0]} {code[0][1:]}", _ODD.sub("?", text))


def first_line(error: BaseException, hide: Callable[[str], str] = str) -> str:
    """Returns the first line of what an error says, 300 letters at most; the error's class where it says nothing.

    First, `hide` takes out of the text what must not be shown, such as a token.
    """
    lines = hide(str(error)).splitlines()
    return next((line.strip() for line in lines if line.strip()), type(error).__name__)[:300]


def short_json(value: object) -> str:
    """Shows a value as JSON, 60 letters at most: of a longer one how it begins and how it ends."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:37]}...{text[-20:]}"


def describe_type(value: object) -> str:
    """Names a value's type for a message, with the package that it is of: `an int`, `a torch.Tensor`, `None`."""
    if value is None:
        return "None"
    package, name = type(value).__module__.partition(".")[0], type(value).__name__
    full = name if package in ("builtins", "__main__") else f"{package}.{name}"
    return f"{'an' if full[0] in 'aeiouAEIOU' else 'a'} {full}"


def suggest_names(name: str, names: Collection[str]) -> str:
    """Says for a message which names a mistyped one may stand for: the nearest, and all of them; of many the five nearest."""
    likeness = {each: difflib.SequenceMatcher(None, each, name).ratio() for each in names}
    nearest = sorted(names, key=likeness.__getitem__, reverse=True)[
        :5
    ]  # of equals the first, where difflib takes the last
    meant = f"did you mean `{nearest[0]}`? " if nearest and likeness[nearest[0]] >= 0.5 else ""
    return meant + ("known: " + ", ".join(names) if len(names) <= MAX_SUGGESTED else "near: " + ", ".join(nearest))


def iter_texts(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yields every text below a JSON value, keys too, with its place."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, below in value.items():
            yield (*place, key), key
            yield from iter_texts(below, (*place, key))
    elif isinstance(value, list | tuple):
        for number, below in enumerate(value):
            yield from iter_texts(below, (*place, str(number)))


def duration(seconds: float) -> str:
    """Writes a time for people: `0.4 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 59.95:  # more is 60.0
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def with_prefix(value: float, unit: str) -> str:
    """Writes a quantity for people: `31.4 GFLOP`, `2.1 MB`."""
    for factor, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * factor:  # less has no more than 999 of the next
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def round_down(share: float) -> str:
    """Writes two digits that are not above the share, which is above 0."""
    scale = 10 ** (1 - math.floor(math.log10(share)))
    return f"{math.floor(share * scale) / scale:g}"


def show_value(value: object) -> str:
    """Writes a parameter or setting for people: `3`, `0.5`, `true`, `3-3-5` for a value with an entry for each stage."""
    if isinstance(value, list | tuple):
        return "-".join(map(show_value, value))
    if isinstance(value, dict):
        return "-".join(f"{name}={show_value(entry)}" for name, entry in value.items()) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
