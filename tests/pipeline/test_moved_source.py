"""A proxy does not say where its source lies: the store remembers, `--source` says, and a message tells both where it is not found."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import proxyds
from proxyds.errors import ChangedSourceError, SourceNotFoundError
from tests.conftest import Run, check_manners, read_tree
from tests.pipeline.test_bad_input import folder_recipe, write_pictures

pytestmark = pytest.mark.e2e

RECIPE = folder_recipe().replace("base_filters: [4, 8]", "base_filters: [2, 4, 6], multiplier: [1, 2]")
FOLDER, HUB = "kind: folder, path: pictures", "kind: hub, name: me/moved-pictures, revision: 0b2714987fa4"
AGAIN = {
    "check": ("check", "proxy", "--dry-run", "-q"),
    "resample": ("resample", "proxy", "--ratio", "0.3", "-o", "new", "-q"),
    "apply": ("apply", "proxy", "-o", "new", "-q"),
}
"""Commands that need a proxy's source again."""


@pytest.fixture
def proxy(
    run_here: Run, write_recipe_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Builds a proxy of `mine/pictures`, which its recipe `mine/recipe.yaml` calls `pictures`, with a store of its own."""
    monkeypatch.delenv("PROXYDS_DATA", raising=False)
    monkeypatch.setenv("PROXYDS_STORE", str(tmp_path / "store"))
    write_pictures(tmp_path / "mine" / "pictures")
    recipe = write_recipe_file(RECIPE, "mine/recipe.yaml")
    done = run_here("build", recipe, "-o", "proxy", "-q", "--workers", "1")
    assert done.returncode == 0, done.stderr
    return tmp_path / "proxy"


@pytest.mark.parametrize("command", AGAIN)
def test_the_machine_that_built_it_finds_the_source_from_anywhere(run_here: Run, proxy: Path, command: str) -> None:
    done = run_here(*AGAIN[command])
    assert done.returncode == 0, done.stderr
    assert not [name for name, held in read_tree(proxy).items() if str(proxy.parent).encode() in held]


@pytest.mark.parametrize("command", AGAIN)
def test_elsewhere_it_is_said_where_the_source_was_sought_and_what_to_type(
    run_here: Run, proxy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("PROXYDS_STORE", str(tmp_path / "empty"))
    (tmp_path / "mine" / "pictures").rename(tmp_path / "of another name")
    lost = run_here(*AGAIN[command])
    check_manners(lost)
    assert lost.returncode == 20, lost.stderr
    for said in ("'pictures'", "this machine remembers no place of it", "--source"):
        assert said in lost.stderr
    told = run_here(*AGAIN[command], "--source", "of another name")
    assert told.returncode == 0, told.stderr
    if (tmp_path / "new").exists():
        assert proxyds.read_manifest(tmp_path / "new").source == proxyds.read_manifest(proxy).source
        assert not [name for name, held in read_tree(tmp_path / "new").items() if b"of another name" in held]
        (tmp_path / "new").rename(tmp_path / "first")
    assert run_here(*AGAIN[command]).returncode == 0  # remembered now


def test_a_copy_of_what_is_on_the_hub_is_remembered_and_known_by_its_name_there(
    run_here: Run, write_recipe_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path / "copies" / "moved-pictures")
    monkeypatch.setenv("PROXYDS_DATA", str(tmp_path / "copies"))
    monkeypatch.setenv("PROXYDS_STORE", str(tmp_path / "store"))
    recipe = write_recipe_file(RECIPE.replace(FOLDER, HUB), "recipe.yaml")
    built = run_here("build", recipe, "-o", "proxy", "-q", "--workers", "1")
    assert built.returncode == 0, built.stderr
    known = proxyds.read_manifest(tmp_path / "proxy").source
    monkeypatch.delenv("PROXYDS_DATA")
    (tmp_path / "copies" / "moved-pictures").rename(tmp_path / "tmp123")
    for place in (["--source", "tmp123"], []):  # the second time from where it was read
        for command in ("resample", "apply"):
            done = run_here(*AGAIN[command], *place)
            assert done.returncode == 0, done.stderr
            source = proxyds.read_manifest(tmp_path / "new").source
            assert (source.kind, source.name, source.revision) == ("hub", "me/moved-pictures", "0b2714987fa4")
            assert (source.is_local_copy, source.fingerprint) == (True, known.fingerprint)
            assert not [name for name, held in read_tree(tmp_path / "new").items() if b"tmp123" in held]
            shutil.rmtree(tmp_path / "new")
    assert run_here(*AGAIN["check"]).returncode == 0


def test_what_was_moved_away_is_told_with_the_place_where_it_lay(run_here: Run, proxy: Path, tmp_path: Path) -> None:
    (tmp_path / "mine" / "pictures").rename(tmp_path / "moved")
    lost = run_here(*AGAIN["check"])
    assert lost.returncode == 20
    assert str(tmp_path / "mine" / "pictures") in lost.stderr
    with pytest.raises(SourceNotFoundError, match="source="):
        proxyds.torch_dataset(proxy, "test")
    assert len(proxyds.torch_dataset(proxy, "test", source=tmp_path / "moved")) > 0
    assert len(proxyds.torch_dataset(proxy, "test")) > 0


def test_another_source_at_the_place_is_an_error_that_names_the_place(
    run_here: Run, proxy: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine" / "pictures" / "owl" / "000.png").unlink()
    for command in AGAIN:
        changed = run_here(*AGAIN[command])
        check_manners(changed)
        if command == "apply" and changed.returncode == 0:
            continue  # every sample of the index may still be there
        assert changed.returncode == 20, changed.stderr
        assert str(tmp_path / "mine" / "pictures") in changed.stderr
    with pytest.raises(ChangedSourceError, match=str(tmp_path / "mine" / "pictures")):
        proxyds.torch_dataset(proxy, "test")


def test_a_folder_of_the_proxys_own_is_never_taken_for_the_source(
    run_here: Run, write_recipe_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROXYDS_DATA", raising=False)
    write_pictures(tmp_path / "mine" / "data")  # as a folder in every proxy is called
    recipe = write_recipe_file(RECIPE.replace("pictures", "data"), "mine/recipe.yaml")
    assert run_here("build", recipe, "-o", "proxy", "-q", "--workers", "1").returncode == 0
    monkeypatch.setenv("PROXYDS_STORE", str(tmp_path / "empty"))
    lost = run_here(*AGAIN["check"])
    assert (lost.returncode, "at hand" in lost.stderr) == (20, True), lost.stderr
    monkeypatch.setenv("PROXYDS_DATA", str(tmp_path / "mine"))
    assert run_here(*AGAIN["check"]).returncode == 0


def test_a_reference_of_the_same_images_under_another_name_is_taken(run_here: Run, proxy: Path, tmp_path: Path) -> None:
    (tmp_path / "mine" / "pictures").rename(tmp_path / "mine" / "images")
    recipe = tmp_path / "mine" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("path: pictures", "path: images"))
    assert run_here("build", recipe, "-o", "other", "-q", "--workers", "1").returncode == 0
    done = run_here("check", "proxy", "--reference", "other", "--source", "mine/images", "--dry-run", "-q")
    assert done.returncode == 60  # for another reason than its source
    assert "must have been checked" in done.stderr


def test_a_source_is_given_once(run_here: Run, proxy: Path) -> None:
    assert run_here("apply", "proxy", "mine/pictures", "--source", "mine/pictures", "-o", "new").returncode == 2
    gone = run_here("check", "proxy", "--dry-run", "--source", "nowhere")
    assert (gone.returncode, gone.stderr.startswith("proxyds: nowhere: ")) == (20, True), gone.stderr
