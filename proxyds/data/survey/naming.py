"""Which split a name means: of a folder the whole name, in any case; of parquet files and tars a word of it too, as such files are named."""

from __future__ import annotations

import re
import unicodedata

from proxyds.errors import SourceError
from proxyds.recipe.sections.source import Columns
from proxyds.text import make_plain

WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""For each name of a split the one that it goes by here."""

_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}")


def normalize(name: str) -> str:
    """Writes a name in Unicode's composed form: systems differ in how they write the same letters."""
    return unicodedata.normalize("NFC", name)


def name_split(name: str, spec: Columns) -> str | None:
    """Returns the split that a name means: one that the recipe names, or one of `WORDS`; None for other names."""
    folded = normalize(name).casefold()
    asked = (spec.train_split, spec.validation_split, spec.test_split)
    return next((each for each in asked if each is not None and each.casefold() == folded), WORDS.get(folded))


def find_split(path: str, spec: Columns) -> str | None:
    """Finds the split of a parquet file or tar: by its name, else by those of the folders that it lies in, the nearest first.

    Raises:
        SourceError: A name holds the names of two splits.
    """
    *folders, file = path.split("/")
    stem = file.rpartition(".")[0]
    shard = _SHARD.match(stem)
    for name in (shard[1], *folders[::-1]) if shard else (stem, *folders[::-1]):
        if whole := name_split(name, spec):
            return whole
        meant = {split for word in re.split(r"[-._ 0-9]+", name) if (split := name_split(word, spec))}
        if len(meant) > 1:
            raise SourceError(
                f"source: a file's name must tell one split, {make_plain(path)} tells {' and '.join(sorted(meant))}; rename it"
            )
        if meant:
            return meant.pop()
    return shard[1] if shard and folders[-1:] == ["data"] else None
