"""What can be known of models' names without importing torch, which takes seconds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from proxyds.space.choices import Space
from proxyds.text import suggest_names

_REGISTERED = re.compile(r"""^@register_model\((?:name=)?(?:["']([^"']+)["'])?\)[\s\S]*?^def (\w+)""", re.MULTILINE)
"""How torchvision's files register a builder: by its own name, or by one that is given."""


@cache
def list_torchvision_models() -> tuple[str, ...]:
    """Lists the classification models of the torchvision that is installed, sorted; none where its files tell nothing."""
    spec = find_spec("torchvision")
    folders = spec.submodule_search_locations if spec is not None else None
    files = [
        file for folder in folders or () for file in Path(folder, "models").glob("*.py")
    ]  # those below are of other tasks
    texts = [file.read_text(encoding="utf-8") for file in files]
    return tuple(sorted(given or own for text in texts for given, own in _REGISTERED.findall(text)))


def find_unknown_models(space: Space) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Finds models that torchvision does not have; of timm's names nothing is known.

    Yields:
        Keys and numbers from the recipe's root to a name, and what is wrong with it.
    """
    known = list_torchvision_models() if space.network == "torchvision" else ()
    if not known:
        return
    named: list[tuple[tuple[str | int, ...], str]] = (
        [(("choices", "model", i), model) for i, model in enumerate(space.choices.model)]
        if space.architectures is None
        else [(("architectures", i, "model"), each.model) for i, each in enumerate(space.architectures)]
    )
    for place, model in named:
        if model not in known:
            yield (
                ("space", *place),
                f"must be a classification model of torchvision, got {model!r}; {suggest_names(model, known)}",
            )


def list_unchecked(space: Space) -> list[str]:
    """Lists what only a dry run checks of the names in a space, since it takes torch."""
    unchecked = {
        "python": ["space: networks, which a Python program hands over"],
        "torchvision": ["space: arguments of models"],
        "timm": ["space: names of timm's models, and their arguments"],
    }
    return unchecked.get(space.network, [])
