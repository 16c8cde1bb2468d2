"""`proxyds init`: a preset, or a recipe for a folder by what lies there, which validates and dry-runs as it is."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from proxyds.data.survey.proposal import Look, look_at, propose_ratio, propose_source
from proxyds.data.survey.records import Survey
from proxyds.recipe.yaml import read_recipe
from tests.conftest import Run, check_manners
from tests.pipeline.test_bad_input import encoded_picture, write_pictures


def write_sized(folder: Path, sides: tuple[tuple[int, int], ...], mode: str = "RGB", n: int = 30) -> None:
    for label, name in enumerate(("bee", "cat")):
        (folder / name).mkdir(parents=True)
        for number in range(n):
            colour = (90 * label + number, number, 5) if mode == "RGB" else 90 * label + number
            Image.new(mode, sides[number % len(sides)], colour).save(folder / name / f"{number:03d}.png")


def unlike_sizes(folder: Path) -> None:
    write_sized(folder, ((50, 70), (90, 40), (33, 33)))


def grey(folder: Path) -> None:
    write_sized(folder, ((28, 28),), "L")


def splits(folder: Path) -> None:
    for name in ("train", "valid", "test"):
        write_pictures(folder / name, n=12)


def something_amiss(folder: Path) -> None:
    write_pictures(folder)
    (folder / "cat" / "deep").mkdir()
    (folder / "cat" / "deep" / "x.png").write_bytes(encoded_picture(1, 5))
    (folder / "cat" / "y.avif").write_bytes(b"x")
    (folder / "bee" / "z.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("x")


def few_of_a_label(folder: Path) -> None:
    write_pictures(folder)
    for number in range(30):
        (folder / "owl" / f"{number:03d}.png").unlink()


def parquet(folder: Path) -> None:
    folder.mkdir(parents=True)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["bee", "cat"])})
    rows = [{"image": {"bytes": encoded_picture(i % 2, i), "path": None}, "label": i % 2} for i in range(80)]
    datasets.Dataset.from_list(rows, features=features).to_parquet(folder / "train.parquet")


FOLDERS: dict[str, tuple[Callable[[Path], None], list[str], dict[str, object]]] = {
    "sizes that differ": (unlike_sizes, ["33 to 50", "test_fraction"], {"image_size": 32}),
    "grey": (grey, [], {"image_size": 28, "image_mode": "L"}),
    "splits": (splits, ["labels in train: 4"], {"image_size": 8}),
    "something amiss": (
        something_amiss,
        ["y.avif", "x.png", "z.png"],
        {"on_left_over": "skip", "on_bad_image": "skip"},
    ),
    "few of a label": (few_of_a_label, ["10 to 40 images"], {}),
    "parquet": (parquet, ["labels in train: 2"], {"image_size": 8}),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_recipe_for_a_folder_says_what_lies_there_and_runs_as_it_is(run_here: Run, tmp_path: Path, name: str) -> None:
    make, said, settings = FOLDERS[name]
    make(tmp_path / "here" / "My images")
    done = run_here("init", "there/r.yaml", "--from", "here/My images")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "there" / "r.yaml").read_text(encoding="utf-8")
    assert str(tmp_path) not in text.partition("source:")[2]
    for words in said:
        assert words in text
    assert "train" in done.stdout
    recipe = read_recipe(tmp_path / "there" / "r.yaml")
    assert recipe.name == "my-images-proxy"
    assert recipe.source.path == str(tmp_path / "there" / ".." / "here" / "My images")  # type: ignore[union-attr]
    assert {key: getattr(recipe.source, key) for key in settings} == settings
    assert run_here("validate", "there/r.yaml").returncode == 0
    planned = run_here("inspect", "there/r.yaml")
    assert planned.returncode == 0, planned.stderr


def test_where_labels_are_not_counted_the_size_stays_the_presets(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyds.pipeline.plan.MOST_READ_BYTES", 0)
    parquet(tmp_path / "images")
    assert run_here("init", "r.yaml", "--from", "images").returncode == 0
    assert "labels in train were not counted" in (tmp_path / "r.yaml").read_text(encoding="utf-8")
    assert read_recipe(tmp_path / "r.yaml").selection.ratio == 0.05


@pytest.mark.e2e
@pytest.mark.parametrize("name", FOLDERS)
def test_a_recipe_for_a_folder_dry_runs(run_here: Run, tmp_path: Path, name: str) -> None:
    FOLDERS[name][0](tmp_path / "images")
    assert run_here("init", "r.yaml", "--from", tmp_path / "images").returncode == 0
    planned = run_here("build", "r.yaml", "--dry-run", "-q", "--json", "--workers", "1")
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["n_selected"] > 0


def test_what_can_be_read_in_two_ways_is_to_be_decided_and_nothing_is_written(run_here: Run, tmp_path: Path) -> None:
    write_pictures(tmp_path / "images" / "train", n=12)
    write_pictures(tmp_path / "images" / "test", ("bee", "fox"), n=12)
    refused = run_here("init", "--from", "images")
    check_manners(refused)
    assert refused.returncode == 20
    for words in ("labels_may_differ", "--preset folder"):
        assert words in refused.stderr
    assert not (tmp_path / "recipe.yaml").exists()


def test_a_backup_beside_images_is_to_be_moved_away_and_nothing_is_written(run_here: Run, tmp_path: Path) -> None:
    write_pictures(tmp_path / "images", n=12)
    (tmp_path / "images" / "backup.tar").write_bytes(bytes(1024))
    refused = run_here("init", "--from", "images")
    check_manners(refused)
    assert refused.returncode == 20
    assert "backup.tar" in refused.stderr
    assert "label_column" not in refused.stderr
    assert not (tmp_path / "recipe.yaml").exists()


def test_a_proxy_of_the_named_size_gives_a_label_some_samples_and_what_is_set_aside_is_counted() -> None:
    look = Look(labels=Counter({"bee": 250, "cat": 400}), sides=Counter({(8, 8): 650}), n_opened=650)
    assert propose_ratio({"train": look}) == 0.2  # of 180 bees
    survey = Survey(Path("x"), "images", {}, "by folders")
    text = propose_source("x", survey, {"train": look})
    assert "about 130 images of train are set aside to test on" in text
    assert "about 52 images of train are set aside to rank on" in text


def test_a_cut_off_image_is_seen() -> None:
    whole = encoded_picture(0, 1)
    look = look_at([(whole, 0, "a/0.png"), (whole[: len(whole) // 2], 1, "b/1.png")])
    assert (look.n_opened, [name for name, _ in look.bad]) == (2, ["b/1.png"])


@pytest.mark.parametrize(("n_bad", "proposed"), [(1, "skip"), (2, "skip"), (3, "fail")])
def test_leaving_out_is_proposed_for_a_few_images_alone_and_the_reason_is_told(n_bad: int, proposed: str) -> None:
    deep = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(deep, "PNG")
    rows = [(deep.getvalue() if n < n_bad else encoded_picture(0, n), n % 2, f"{n}.png") for n in range(20)]
    survey = Survey(Path("x"), "images", {}, "by folders")
    text = propose_source("x", survey, {"train": look_at(rows)})
    assert f"on_bad_image: {proposed} " in text
    unnamed = [(row[0], row[1], "") for row in rows]
    of_both = propose_source("x", survey, {"train": look_at(unnamed), "test": look_at(unnamed)})
    assert f"images that cannot be used: {2 * n_bad} (" in of_both
    assert "0.png" in text
    assert "16 bits" in text


@pytest.mark.parametrize("folder", ["nowhere", "empty", "file"])
def test_a_folder_that_holds_nothing_is_refused(run_here: Run, tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    refused = run_here("init", "--from", folder)
    check_manners(refused)
    assert (refused.returncode, folder in refused.stderr) == (20, True), refused.stderr
    assert not (tmp_path / "recipe.yaml").exists()


def test_init_takes_a_preset_or_a_folder(run_here: Run, tmp_path: Path) -> None:
    assert run_here("init", "--preset", "folder").returncode == 0
    recipe = read_recipe(tmp_path / "recipe.yaml")
    assert recipe.source.path == str(tmp_path / "my-images")  # type: ignore[union-attr]
    assert run_here("init", "x.yaml", "--preset", "folder", "--from", ".").returncode == 2
    assert run_here("init", "--from", ".").returncode == 40  # the file is there


def test_a_name_of_any_length_is_an_error_of_ours(run_here: Run) -> None:
    done = run_here("init", f"{'a' * 300}.yaml")
    assert done.returncode > 3
    assert "Traceback" not in done.stderr
    assert "name too long" in done.stderr.lower()
