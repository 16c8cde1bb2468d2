"""What a recipe needs of a program is asked for at once, with the call that passes all of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import proxyds
from proxyds.errors import CallableError, ProxydsError, SourceNotFoundError
from proxyds.pipeline.reading import HandedOver, hand_over_to_build, hand_over_to_check
from proxyds.recipe.models import Check, Recipe
from proxyds.runtime.storage.store import Store

CODE = {"name": "fit_network", "sha256": "e" * 64}
SECTIONS: dict[str, Any] = {
    "source": {"kind": "memory", "name": "arrays"},
    "space": {
        "network": "python",
        "architectures": [{"name": name, "sha256": digit * 64} for name, digit in (("wide", "a"), ("narrow", "b"))],
    },
    "trainer": {"trainer": CODE},
}
PLAIN = {"source": {"kind": "digits"}, "space": {"network": "resnet", "choices": {"depth": [8, 14]}}, "trainer": {}}
TOLD = {"source": "'arrays'", "space": "'wide'", "trainer": "training.trainer"}
SHOWN = {"source": "source=...", "space": "space=...", "trainer": "trainer=fit_network"}


def make_recipe(*missing: str) -> Recipe:
    chosen = {name: (SECTIONS if name in missing else PLAIN)[name] for name in SECTIONS}
    sections = {"name": "tiny", "training": chosen.pop("trainer"), **chosen}
    return Recipe.model_validate_json(json.dumps(sections))


@pytest.mark.parametrize(
    "missing", [("source",), ("space",), ("trainer",), ("source", "trainer"), ("source", "space", "trainer")]
)
def test_all_that_is_missing_is_told_at_once(missing: tuple[str, ...], tmp_path: Path) -> None:
    recipe, errors = make_recipe(*missing), []
    manifest: Any = SimpleNamespace(source=SimpleNamespace(fingerprint="0" * 64), space=SimpleNamespace(origin={}))
    with pytest.raises(ProxydsError) as caught:
        hand_over_to_build(recipe, HandedOver())
    errors.append((caught.value, "proxyds.build(recipe, out"))
    with pytest.raises(ProxydsError) as caught:
        hand_over_to_check(recipe, Check(), manifest, HandedOver(), Store(tmp_path))
    errors.append((caught.value, "proxyds.check(folder"))
    for error, call in errors:
        assert type(error) is (SourceNotFoundError if missing == ("source",) else CallableError)
        assert ", ".join([call, *(SHOWN[name] for name in missing)]) + ")" in str(error)
        assert [name for name in TOLD if TOLD[name] in str(error)] == list(missing)


def test_what_is_passed_stays_in_the_call_and_another_trainer_is_told_with_what_is_missing() -> None:
    def fit_otherwise(network: Any, train: Any, *, seed: int, device: str) -> Any:
        return network

    with pytest.raises(CallableError, match=r"fit_otherwise(.|\n)*arrays(.|\n)*source=\.\.\., trainer=fit_network"):
        hand_over_to_build(make_recipe("source", "trainer"), HandedOver(trainer=fit_otherwise))


def test_a_source_of_files_that_is_gone_is_no_matter_of_python(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError) as caught:
        proxyds.build(make_recipe(), tmp_path / "out", source=tmp_path / "nowhere")
    assert "proxyds.build(" not in str(caught.value)
