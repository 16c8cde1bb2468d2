"""What a survey finds is shown before a build and after it: by `build --dry-run`, `inspect RECIPE`, the build itself, the card, `inspect PROXY`."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Run, check_manners
from tests.pipeline.test_bad_input import encoded_picture, folder_recipe, write_pictures

pytestmark = pytest.mark.e2e


def write_again(path: Path, encoded: bytes) -> None:
    """Writes a picture in another format, whatever its file is named."""
    with Image.open(io.BytesIO(encoded)) as image:
        image.save(path, "WEBP", lossless=True)


@pytest.fixture
def recipe(write_recipe_file: Callable[..., Path], tmp_path: Path) -> Path:
    """Writes a recipe for a folder with something to leave out, a label without images, and one picture under two labels."""
    write_pictures(tmp_path / "pictures" / "Train")
    for name in (".DS_Store", "notes.txt"):
        (tmp_path / "pictures" / "Train" / "cat" / name).write_text("x")
    (tmp_path / "pictures" / "Train" / "yak").mkdir()
    (tmp_path / "pictures" / "Train" / "bee" / "same.png").write_bytes(encoded_picture(0, 5000))
    write_again(tmp_path / "pictures" / "Train" / "cat" / "same.png", encoded_picture(0, 5000))
    return write_recipe_file(folder_recipe())


def test_the_survey_is_shown_before_a_build(run_here: Run, recipe: Path) -> None:
    enlarged = ("--set", "source.image_size=12")
    planned = run_here("build", recipe, "--dry-run", "-q", "--workers", "1", *enlarged)
    assert "enlarged to 12 pixels, the smallest from 8" in planned.stdout
    inspected = run_here("inspect", recipe)
    for done in (planned, inspected):
        assert done.returncode == 0, done.stderr
        assert "Train/" in done.stdout
        assert "notes.txt" in done.stdout
        assert ".DS_Store" in done.stdout
        assert "Train/yak" in done.stdout
        assert "under two labels or more: 2" in done.stdout
    told = json.loads(run_here("build", recipe, "--dry-run", "-q", "--json", "--workers", "1").stdout)
    assert told["source"]["n_conflicting"] == 2
    assert sum(told["source"]["left_out"].values()) == 2
    assert told["source"] == json.loads(run_here("inspect", recipe, "--json").stdout)["source"]


def test_the_survey_is_shown_after_a_build(run_here: Run, recipe: Path, tmp_path: Path) -> None:
    done = run_here("build", recipe, "-o", "out", "-q", "--json", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "notes.txt" in done.stderr
    source = json.loads(done.stdout)["source"]
    assert (source["n_conflicting"], sum(source["left_out"].values())) == (2, 2)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    shown = run_here("inspect", "out").stdout
    for text in (card, shown):
        assert "Train/" in text
        assert "other files: 1" in text
    assert "under two labels or more | 2 |" in card
    assert str(tmp_path) not in card
    assert run_here("verify", "out").returncode == 0


def test_what_was_left_out_is_named_in_a_proxy(run_here: Run, recipe: Path, tmp_path: Path) -> None:
    for number in (7, 9):
        (tmp_path / "pictures" / "Train" / "owl" / f"{number:03d}.png").write_bytes(b"no image")
    done = run_here("build", recipe, "-o", "out", "-q", "--workers", "1", "--set", "source.on_bad_image=skip")
    assert done.returncode == 0, done.stderr
    assert "007.png" in done.stderr
    shown = run_here("inspect", recipe, "--set", "source.on_bad_image=skip", "--json").stdout
    assert len(json.loads(shown)["source"]["bad_images"]) == 2
    shown = run_here("inspect", "out").stdout
    (line,) = [line for line in shown.splitlines() if "do not decode" in line]
    for said in (": 2: ", "007.png", "009.png"):
        assert said in line


@pytest.mark.parametrize(("what", "code"), [("nowhere", 50), ("no where/x/y", 50), ("me/nowhere", 70)])
def test_what_is_no_proxy_is_told_with_what_was_looked_for(
    run_here: Run, monkeypatch: pytest.MonkeyPatch, what: str, code: int
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused = run_here("inspect", what)
    check_manners(refused)
    assert refused.returncode == code, refused.stderr
    for said in (what, "folder", "Hub"):
        assert said in refused.stderr


def test_a_licence_that_the_hub_may_not_know_is_no_wall(run_here: Run, recipe: Path) -> None:
    recipe.write_text(recipe.read_text() + "licence: open-mdw\n")
    done = run_here("validate", recipe)
    assert done.returncode == 0
    assert "openmdw-1.0" in done.stderr
    (warning,) = json.loads(run_here("validate", recipe, "--json").stdout)["warnings"]
    assert warning in done.stderr


def test_a_probe_that_learns_nothing_is_told_of_images_under_two_labels_and_in_two_splits(
    run_here: Run, write_recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    for split in ("train", "test"):
        for label in ("bee", "cat"):
            (tmp_path / "pictures" / split / label).mkdir(parents=True)
            for number in range(60):
                place = tmp_path / "pictures" / split / label / f"{number}.png"
                if (split, label) == ("test", "cat"):
                    write_again(place, encoded_picture(0, number))
                else:
                    place.write_bytes(encoded_picture(0, number))
    done = run_here("build", write_recipe_file(folder_recipe()), "-o", "out", "-q", "--workers", "1")
    assert done.returncode == 30
    said = done.stderr.splitlines()[-1]
    assert "better than chance" in said
    assert "under two labels or more: 240" in said
    assert "among the evaluation or test samples" in said
