"""Quantities as people read them."""

from __future__ import annotations


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
