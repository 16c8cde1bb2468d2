"""Proxies at addresses: a real S3 server in a process of its own, folders by `file://`; and resampling from a source that moved."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_RECIPE
from PIL import Image

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """The variables with which programs talk to a stand-in for S3 that holds an empty bucket `shelf`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        for _ in range(300):
            try:
                urllib.request.urlopen(urllib.request.Request(f"{address}/shelf", method="PUT"), timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        secrets = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "very-secret"}
        yield {"AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1", **secrets}
        server.terminate()


@pytest.fixture
def proxyds_(run_proxyds: Run, s3: dict[str, str]) -> Run:
    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        done = run_proxyds(*arguments, **{**s3, **environment})
        assert "Traceback" not in done.stderr, done.stderr
        assert "very-secret" not in done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def change_object(s3: dict[str, str]) -> Callable[..., None]:
    """Replaces or deletes an object behind everybody's back."""

    def change(name: str, held: bytes | None) -> None:
        do = f"fs.rm_file('shelf/{name}')" if held is None else f"fs.pipe_file('shelf/{name}', {held!r})"
        code = f"import fsspec; fs = fsspec.filesystem('s3'); {do}"
        subprocess.run([sys.executable, "-c", code], env={**os.environ, **s3}, check=True, timeout=60)

    return change


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_is_pushed_to_a_bucket_is_what_is_pulled(
    proxyds_: Run, change_object: Callable[..., None], tiny_proxy: Path, checked_proxy: Path, tmp_path: Path
) -> None:
    planned = proxyds_("push", tiny_proxy, "s3://shelf/a", "--dry-run")
    assert (planned.returncode, "nothing was done" in planned.stdout) == (0, True), planned.stderr
    assert proxyds_("pull", "s3://shelf/a", "-o", "got").returncode == 50
    assert "published: s3://shelf/a" in proxyds_("push", tiny_proxy, "s3://shelf/a").stdout
    assert "nothing was changed" in proxyds_("push", tiny_proxy, "s3://shelf/a/").stdout
    assert proxyds_("pull", "s3://shelf/a", "-o", "got").returncode == 0
    assert tree(tmp_path / "got") == tree(tiny_proxy)
    assert "130 of 1,295 training samples" in proxyds_("inspect", "s3://shelf/a").stdout
    assert proxyds_("push", checked_proxy, "s3://shelf/a").returncode == 41  # another proxy is there
    change_object("a/manifest.json", None)
    assert proxyds_("push", tiny_proxy, "s3://shelf/a").returncode == 41  # whoever's files these are
    names = "\n".join(sorted(tree(tiny_proxy)))
    change_object("a/.proxyds", names.encode())  # what a push that broke off leaves
    assert proxyds_("pull", "s3://shelf/a", "-o", "half").returncode == 50
    assert proxyds_("push", tiny_proxy, "s3://shelf/a").returncode == 0
    held = (tiny_proxy / "recipe.yaml").read_bytes()
    change_object("a/recipe.yaml", b"#" * len(held))
    refused = proxyds_("pull", "s3://shelf/a", "-o", "other")
    assert (refused.returncode, "recipe.yaml: its bytes have changed" in refused.stderr) == (51, True)
    change_object("a/recipe.yaml", held + b"#")
    refused = proxyds_("pull", "s3://shelf/a", "-o", "other")
    assert (refused.returncode, "nothing was fetched" in refused.stderr) == (51, True)
    assert not (tmp_path / "other").exists()


def test_a_proxy_is_made_at_an_address(proxyds_: Run, tiny_proxy: Path, write_recipe_file, tmp_path: Path) -> None:
    recipe = write_recipe_file()
    built = proxyds_("build", recipe, "-o", "s3://shelf/built")
    assert "tiny 1.0.0 built: s3://shelf/built" in built.stdout, built.stderr
    again = proxyds_("build", recipe, "-o", "s3://shelf/built")
    assert "is there already, unchanged" in again.stdout, again.stderr
    other = proxyds_("build", recipe, "--set", "selection.ratio=0.2", "-o", "s3://shelf/built")
    assert (other.returncode, "s3://shelf/built: must be a new folder" in other.stderr) == (41, True)
    forced = proxyds_("build", recipe, "--set", "selection.ratio=0.2", "-o", "s3://shelf/built", "--force")
    assert "259 of 1,295" in forced.stdout, forced.stderr
    assert proxyds_("pull", "s3://shelf/built", "-o", f"file://{tmp_path}/copied").returncode == 0
    drawn = proxyds_("resample", f"file://{tmp_path}/copied", "--draw", "successive", "-o", "s3://shelf/drawn")
    assert "drawn successive" in drawn.stdout, drawn.stderr
    assert proxyds_("pull", "s3://shelf/drawn", "-o", "drawn").returncode == 0


def test_what_cannot_be_reached_is_told_in_one_message(proxyds_: Run, tiny_proxy: Path) -> None:
    assert proxyds_("push", tiny_proxy, "s3://no-such-bucket/a").returncode in (70, 71)
    missing = proxyds_("push", tiny_proxy, "gs://shelf/a")
    assert (missing.returncode, "pip install 'proxyds[gs]'" in missing.stderr) == (16, True)
    assert proxyds_("pull", "nope://shelf/a").returncode == 71
    assert proxyds_("push", tiny_proxy, "s3://shelf/b", "--tag", "v1.0.0").returncode == 75
    assert proxyds_("build", "x.yaml", "-o", "me/x").returncode == 11  # a folder like any other
    gone = proxyds_("pull", "s3://shelf/a", "-o", "x", AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert gone.returncode == 70
    shown = proxyds_("pull", "ftp://somebody:hidden-word@127.0.0.1:9/x")
    assert (shown.returncode, "hidden-word" in shown.stderr) == (70, False)


def test_a_folder_is_published_by_its_address(proxyds_: Run, tiny_proxy: Path, tmp_path: Path) -> None:
    address = f"file://{tmp_path}/shelf/tiny"
    assert proxyds_("push", tiny_proxy, address).returncode == 0
    assert tree(tmp_path / "shelf" / "tiny") == tree(tiny_proxy)
    assert proxyds_("inspect", address).returncode == 0
    assert proxyds_("pull", address, "-o", "got").returncode == 0


# Resampling: the source's samples are found by content

FOLDER_RECIPE = (
    TINY_RECIPE.replace("{kind: digits}", "{kind: folder, path: images, image_mode: L}")
    .replace("crop_padding: 1", "crop_padding: 0")
    .replace("ratio: 0.1", "ratio: 0.3")
)


def write_images(folder: Path, *, order: int = 0, suffix: str = "png", less: int = 0, more: int = 0) -> None:
    """Dark and light noise; the same pictures whatever their order and format."""
    rng = np.random.default_rng(0)
    for label, level in (("dark", 20), ("light", 180)):
        (folder / "train" / label).mkdir(parents=True)
        pictures = [rng.integers(level, level + 60, (9, 9), np.uint8) for _ in range(80 + more)]
        names = np.random.default_rng(order).permutation(len(pictures))
        for name, picture in list(zip(names, pictures, strict=True))[less:]:
            Image.fromarray(picture).save(folder / "train" / label / f"{name:03d}.{suffix}", lossless=True)


def test_a_source_in_another_order_and_format_still_works_and_a_changed_one_is_refused(
    proxyds_: Run, tmp_path: Path, write_recipe_file
) -> None:
    write_images(tmp_path / "images")
    recipe = write_recipe_file(FOLDER_RECIPE)
    built = proxyds_("build", recipe, "-o", "built")
    assert built.returncode == 0, built.stderr
    lost = proxyds_("resample", "built", "--ratio", "0.5", "-o", "new")
    assert lost.returncode == 21  # nobody knows where the images are
    write_images(tmp_path / "again", order=5, suffix="bmp")
    drawn = proxyds_("resample", "built", "--ratio", "0.5", "--source", "again", "-o", "new")
    assert drawn.returncode == 0, drawn.stderr
    same = proxyds_("build", recipe, "--set", "selection.ratio=0.5", "-o", "same")
    assert same.returncode == 0, same.stderr
    import proxyds

    new, other = proxyds.read_tables(tmp_path / "new"), proxyds.read_tables(tmp_path / "same")
    assert new.data["sample_id"].to_pylist() == other.data["sample_id"].to_pylist()
    assert new.data["encoded_sha256"].to_pylist() != other.data["encoded_sha256"].to_pylist()
    assert (
        proxyds.read_manifest(tmp_path / "new").recipe_sha256 == proxyds.read_manifest(tmp_path / "same").recipe_sha256
    )
    write_images(tmp_path / "changed", less=2, more=1)
    refused = proxyds_("resample", "built", "--source", "changed", "-o", "never")
    assert refused.returncode == 27, refused.stderr
    assert "are gone" in refused.stderr
    assert not (tmp_path / "never").exists()


def test_another_seed_draws_others_and_what_would_need_training_is_refused(
    proxyds_: Run, tiny_proxy: Path, tmp_path: Path
) -> None:
    import proxyds

    assert proxyds_("resample", tiny_proxy, "--seed", "5", "-o", "seeded").returncode == 0
    drawn = proxyds.read_tables(tmp_path / "seeded").data["sample_id"].to_pylist()
    before = proxyds.read_tables(tiny_proxy).data["sample_id"].to_pylist()
    assert len(drawn) == len(before)
    assert 0 < len(set(drawn) & set(before)) < len(before)
    assert "unchanged" in proxyds_("resample", tiny_proxy, "--seed", "5", "-o", "seeded").stdout
    assert proxyds_("resample", tiny_proxy, "--seed", "6", "-o", "seeded").returncode == 41
    refused = proxyds_("resample", tiny_proxy, "--set", "seed=3", "-o", "x")
    assert (refused.returncode, "the draw's own seed is --seed" in refused.stderr) == (10, True)
    assert proxyds_("resample", tiny_proxy, "--set", "training.epochs=9", "-o", "x").returncode == 10
    assert proxyds_("resample", tiny_proxy, "--ratio", "0.001", "-o", "x").returncode == 25
    assert not (tmp_path / "x").exists()
    checked = proxyds_("check", "seeded", "--dry-run")  # its draws are those of its own seed
    assert checked.returncode in (0, 60), checked.stderr
    assert os.listdir(tmp_path / "seeded")  # noqa: PTH208
