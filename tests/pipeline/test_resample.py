"""Drawing again from a proxy's importance table: other seeds, laws and sizes, from a source that may have moved.

That it fetches no images, and draws what a build would, stands in `test_pull.py`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from proxyds.artifact.reader import read_manifest
from proxyds.artifact.writer import rewrite_manifest
from tests.conftest import TINY_RECIPE, Run, check_manners, read_tree


def column(folder: Path, name: str) -> list[str]:
    """A column of the drawn samples."""
    import proxyds

    values: list[str] = proxyds.read_tables(folder).data[name].to_pylist()
    return values


def test_another_seed_draws_others_and_as_many(run_here: Run, tiny_proxy: Path, tmp_path: Path) -> None:
    assert run_here("resample", tiny_proxy, "--seed", "5", "-o", "seeded").returncode == 0
    drawn, before = column(tmp_path / "seeded", "sample_id"), column(tiny_proxy, "sample_id")
    assert len(drawn) == len(before)
    assert 0 < len(set(drawn) & set(before)) < len(before)
    made = read_tree(tmp_path / "seeded")
    checked = run_here("check", "seeded", "--dry-run")  # its draws are those of its own seed
    assert checked.returncode in (0, 60), checked.stderr
    assert read_tree(tmp_path / "seeded") == made


def test_a_proxy_with_its_parents_name_and_version_is_warned_of(
    run_here: Run, tiny_proxy: Path, tmp_path: Path
) -> None:
    same = run_here("resample", tiny_proxy, "--seed", "5", "-o", "same")
    assert "version: tiny 1.0.0 is the proxy that is drawn from" in " ".join(same.stderr.split())
    other = run_here("resample", tiny_proxy, "--seed", "5", "--set", "version=1.0.1", "-o", "other")
    assert "version:" not in other.stderr


def test_another_law_draws_others_and_as_many(run_here: Run, tiny_proxy: Path, tmp_path: Path) -> None:
    assert run_here("resample", tiny_proxy, "--draw", "successive", "--seed", "5", "-o", "new").returncode == 0
    drawn, before = column(tmp_path / "new", "sample_id"), column(tiny_proxy, "sample_id")
    assert len(drawn) == len(before)
    assert set(drawn) != set(before)


def test_the_same_draw_changes_nothing_and_another_does_not_take_its_place(
    run_here: Run, tiny_proxy: Path, tmp_path: Path
) -> None:
    assert run_here("resample", tiny_proxy, "--seed", "5", "-o", "new").returncode == 0
    before = (tmp_path / "new" / "manifest.json").read_bytes()
    assert "unchanged" in run_here("resample", tiny_proxy, "--seed", "5", "-o", "new").stdout
    assert run_here("resample", tiny_proxy, "--seed", "6", "-o", "new").returncode == 40
    assert (tmp_path / "new" / "manifest.json").read_bytes() == before


def test_what_would_need_training_or_cannot_be_drawn_is_refused(
    run_here: Run, tiny_proxy: Path, tmp_path: Path
) -> None:
    for options, code, said in [
        (("--set", "seed=3"), 10, "the draw's own seed is selection.seed (--seed)"),
        (("--set", "training.epochs=9"), 10, "build a proxy with it"),
        (("--ratio", "0.001"), 20, "selection.ratio"),
        (("--draw", "nope"), 10, "nope"),
    ]:
        refused = run_here("resample", tiny_proxy, *options, "-o", "x")
        check_manners(refused)
        assert (refused.returncode, said in refused.stderr) == (code, True), (options, refused.stderr)
    assert not list(tmp_path.iterdir())


def test_a_table_that_was_changed_is_not_drawn_from(run_here: Run, tiny_proxy: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(tiny_proxy, tmp_path / "changed"))
    path = changed / "importance" / "train-00000-of-00001.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index("case")
    cases = [{1: 3, 3: 1}.get(case, case) for case in table["case"].to_pylist()]
    pq.write_table(table.set_column(place, table.schema.field(place), [pa.array(cases, pa.int8())]), path)
    for code, said in (
        (50, "importance/train-00000-of-00001.parquet: must have"),
        (50, "importance/: case must be what the answers"),
    ):
        for command in (("resample", "changed", "--seed", "5", "-o", "new"), ("inspect", "changed")):
            refused = run_here(*command)
            assert (refused.returncode, said in refused.stderr) == (code, True), refused.stderr
        rewrite_manifest(changed, read_manifest(changed), written=[path.relative_to(changed).as_posix()])
    assert not (tmp_path / "new").exists()


def test_what_was_not_done_again_took_no_time(run_here: Run, tiny_proxy: Path, tmp_path: Path) -> None:
    assert run_here("resample", tiny_proxy, "--seed", "5", "-o", "new").returncode == 0
    stages = {each["stage"]: each for each in json.loads((tmp_path / "new" / "manifest.json").read_text())["stages"]}
    assert (stages["probes"]["was_stored"], stages["probes"]["elapsed_seconds"]) == (True, 0)
    assert stages["selection"]["elapsed_seconds"] > 0
    shown = run_here("inspect", "new").stdout
    assert shown.startswith("tiny 1.0.0 at new, licence unknown\n")
    assert "drawn again from the importance table of tiny 1.0.0" in shown


# The source's samples are found by content


@pytest.fixture(scope="module")
def of_images(tmp_path_factory: pytest.TempPathFactory, session_store: Path) -> Path:
    """A folder with `images`, dark and light noise, and proxies of them: `built`, and `larger` of a share of 0.3."""
    import proxyds

    here = tmp_path_factory.mktemp("moved")
    write_images(here / "images")
    text = TINY_RECIPE.replace("{kind: digits}", "{kind: folder, path: images}")
    (here / "recipe.yaml").write_text(text.replace("crop_padding: 1", "crop_padding: 0").replace("0.1}", "0.2}"))
    for name, overrides in {"built": [], "larger": ["selection.ratio=0.3"]}.items():
        recipe = proxyds.read_recipe(here / "recipe.yaml", overrides)
        proxyds.build(recipe, here / name, store=proxyds.Store(session_store), device="cpu")
    return here


def write_images(
    folder: Path, *, shift: int = 0, leave_out: int = 0, add: int = 0, suffix: str = "png", **options: object
) -> None:
    """The same pictures, whatever their order and encoding."""
    rng = np.random.default_rng(0)

    def save(picture: np.ndarray, name: str) -> None:
        Image.fromarray(picture).save(folder / f"{name}.{suffix}", **options)

    for name, level in (("dark", 20), ("light", 180)):
        (folder / name).mkdir(parents=True)
        for i, picture in enumerate(rng.integers(level, level + 60, (80, 8, 8, 3), np.uint8)):
            if name == "dark" or i >= leave_out:
                save(picture, f"{name}/{(i * 7 + shift) % 80:02d}")
    for i in range(add):
        save(np.full((8, 8, 3), 100 + i, np.uint8), f"dark/new{i}")


@pytest.mark.e2e
@pytest.mark.parametrize(
    "options",
    [{"shift": 11, "compress_level": 0}, {"suffix": "webp", "lossless": True}, {"shift": 5, "suffix": "bmp"}],
    ids=lambda each: each.get("suffix", "png"),
)
def test_a_source_in_another_order_or_encoding_gives_the_samples_that_a_build_would_draw(
    run_here: Run, of_images: Path, tmp_path: Path, options: dict[str, object]
) -> None:
    import proxyds

    write_images(tmp_path / "again", **options)  # type: ignore[arg-type]
    drawn = run_here("resample", of_images / "built", "--source", "again", "--ratio", "0.3", "-o", "new", "--json")
    assert drawn.returncode == 0, drawn.stderr
    assert run_here("verify", "new").returncode == 0
    new, larger = tmp_path / "new", of_images / "larger"
    assert len(column(new, "sample_id")) == round(0.3 * json.loads(drawn.stdout)["counts"]["train"])
    assert column(new, "sample_id") == column(larger, "sample_id")
    assert column(new, "encoded_sha256") != column(larger, "encoded_sha256")
    assert proxyds.read_manifest(new).recipe_sha256 == proxyds.read_manifest(larger).recipe_sha256
    assert str(tmp_path) not in (new / "recipe.yaml").read_text()
    facts = proxyds.read_manifest(new).source
    assert (facts.name, facts.kind) == ("images", "folder")  # as the proxy knows it, wherever it lies


def test_from_python_a_source_is_found_by_an_override(of_images: Path, tmp_path: Path) -> None:
    import proxyds

    overrides = ["selection.ratio=0.3", f"source.path={of_images / 'images'}"]
    proxyds.resample(of_images / "built", tmp_path / "new", overrides=overrides)
    assert column(tmp_path / "new", "sample_id") == column(of_images / "larger", "sample_id")


def test_a_source_that_is_not_at_hand_or_not_the_same_is_refused(
    run_here: Run, of_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXYDS_STORE", str(tmp_path / "store"))  # which remembers no place
    (tmp_path / "images").symlink_to(of_images / "images")  # a proxy does not say where its source lay
    assert run_here("resample", of_images / "built", "-o", "new").returncode == 20
    (tmp_path / "empty").mkdir()
    assert run_here("resample", of_images / "built", "--source", "empty", "-o", "new").returncode == 20
    write_images(tmp_path / "changed", leave_out=3, add=2)
    refused = run_here("resample", of_images / "built", "--source", "changed", "-o", "new")
    check_manners(refused)
    assert refused.returncode == 20, refused.stderr
    assert "are gone" in refused.stderr
    assert "are new" in refused.stderr
    assert not (tmp_path / "new").exists()
