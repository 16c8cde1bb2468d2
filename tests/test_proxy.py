"""A proxy as an object: what it shows is what its files hold, verified; nothing is read before it is asked for."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import proxyds
from proxyds.artifact.manifest import MANIFEST
from proxyds.errors import ArtifactError, EvidenceError, ProxydsError, SplitNotFoundError, VerificationError
from tests.conftest import Hub, Run

PLOTS = [name for name in dir(proxyds.Proxy) if name.startswith("plot_")]


def test_its_splits_hold_the_images_and_labels_that_torch_sees(tiny_proxy: Path) -> None:
    proxy = proxyds.open(tiny_proxy)
    for split, rows in (("train", proxy.train), ("validation", proxy.validation)):
        images, labels = proxy.torch(split).tensors
        assert len(rows) == len(images) > 0
        assert rows["label"][:] == labels.tolist()
        assert isinstance(rows[0]["image"], Image.Image)
        np.testing.assert_allclose(np.asarray(rows[0]["image"]) / 255, images[0, 0], atol=1e-6)
        assert rows.features["label"].names == [str(digit) for digit in range(10)]


def test_its_tables_are_data_frames_and_arrow(checked_proxy: Path) -> None:
    proxy = proxyds.open(str(checked_proxy))
    counts = proxy.manifest.counts
    assert [len(each) for each in (proxy.samples, proxy.importance, proxy.evaluation)] == [
        counts.proxy,
        counts.train,
        counts.evaluation,
    ]
    assert isinstance(proxy.samples, pd.DataFrame)
    assert sorted(proxy.importance[proxy.importance["selected"]]["sample_id"]) == sorted(proxy.samples["sample_id"])
    assert proxy.tables.ranking is not None
    assert len(proxy.runs) == proxy.tables.ranking.num_rows
    row = proxy.evidence.query("method == 'proxy' and ranked_by == 'accuracy'").iloc[0]
    assert proxy.manifest.evidence is not None
    tau = proxy.manifest.evidence.own_tau
    assert (row["tau"], row["tau_low"], row["tau_high"]) == (tau.value, tau.low, tau.high)
    assert proxy.card.startswith("---\n")
    assert proxy.recipe.sha256 == proxy.manifest.recipe_sha256


def test_its_pictures_are_those_of_the_card(pictures: None, checked_proxy: Path, tmp_path: Path) -> None:
    checked_proxy = Path(shutil.copytree(checked_proxy, tmp_path / "proxy"))
    proxyds.render(checked_proxy)
    proxy, drawn = proxyds.open(checked_proxy), set()
    for name in PLOTS:
        try:
            figure = getattr(proxy, name)()
        except EvidenceError:
            continue
        picture = checked_proxy / "assets" / f"{name.removeprefix('plot_')}.png"
        drawn.add(picture.name)
        shown, expected = Image.open(io.BytesIO(figure._repr_png_())).convert("RGB"), Image.open(picture).convert("RGB")
        assert shown.size == expected.size
        # laid out twice: what has many lines of images, the gallery, may move by some pixels
        most = 30 if name == "plot_gallery" else 5
        assert np.abs(np.asarray(shown, float) - np.asarray(expected, float)).mean() < most, name
    assert drawn == {path.name for path in (checked_proxy / "assets").glob("*.png")}


def test_what_was_not_checked_says_so(tiny_proxy: Path) -> None:
    proxy = proxyds.open(tiny_proxy)
    assert proxy.verdict == "not checked"
    for ask in (lambda: proxy.runs, lambda: proxy.evidence, proxy.plot_accuracy, proxy.plot_ratios):
        with pytest.raises(EvidenceError):
            ask()


def test_a_notebook_sees_a_table_with_the_verdict_and_one_picture(checked_proxy: Path, tiny_proxy: Path) -> None:
    for folder in (checked_proxy, tiny_proxy):
        proxy = proxyds.open(folder)
        shown = proxy._repr_html_()
        assert proxy.verdict in shown
        assert len(re.findall("<img ", shown)) == 1
        assert "\n" not in repr(proxy)
        assert proxy.manifest.name in repr(proxy)


def test_what_builds_and_checks_return_leads_to_the_proxy(checked_proxy: Path, tiny_proxy: Path) -> None:
    for folder, found in ((checked_proxy, proxyds.open(checked_proxy).verdict), (tiny_proxy, "not checked")):
        built = proxyds.Built(folder, proxyds.read_manifest(folder))
        assert proxyds.open(built).folder == folder
        assert found in repr(built)
        assert found in str(built)
        assert f"proxyds.open('{folder}')" in str(built)
        assert len(str(built).splitlines()) < 10


def change_manifest(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | changes))


def test_names_of_strangers_are_text_in_a_notebook(tiny_proxy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "proxy"
    shutil.copytree(tiny_proxy, folder)
    change_manifest(folder, name="a & b \" onload='x'")
    proxy = proxyds.open(folder)
    proxy.__dict__["_audit"] = (proxy.manifest, proxyds.open(tiny_proxy).tables)
    assert "a &amp; b &quot; onload=&#x27;x&#x27;" in proxy._repr_html_()


def test_nothing_that_differs_from_the_manifest_is_shown(checked_proxy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "proxy"
    shutil.copytree(checked_proxy, folder)
    for path in (*folder.glob("data/*.parquet"), *folder.glob("importance/*.parquet"), folder / "README.md"):
        path.write_bytes(path.read_bytes() + b" ")
    proxy = proxyds.open(folder)
    for ask in (lambda: proxy.train, lambda: proxy.samples, lambda: proxy.card, proxy._repr_html_, proxy.plot_gallery):
        with pytest.raises(VerificationError):
            ask()


def test_a_verdict_that_does_not_follow_from_the_runs_is_not_shown(checked_proxy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "proxy"
    shutil.copytree(checked_proxy, folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    change_manifest(folder, evidence=manifest["evidence"] | {"verdict": "worse than random"})
    with pytest.raises(ArtifactError):
        proxyds.open(folder)._repr_html_()


@pytest.mark.parametrize("place", ["nothing-here", Path("nothing-here"), ".", 3, None, b"x", "a\0b"])
def test_what_is_no_proxy_is_an_error_of_ours(place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProxydsError):
        proxyds.open(place)


def test_a_proxy_without_samples_to_rank_on_says_where_they_are(tiny_proxy: Path, tmp_path: Path) -> None:
    out = tmp_path / "without"
    proxyds.resample(tiny_proxy, out, overrides=["output.validation=none", "version=1.0.1"])
    with pytest.raises(SplitNotFoundError):
        proxyds.open(out).validation  # noqa: B018 - the access is what is tested


def test_opening_reads_the_manifest_alone_and_imports_no_torch(tiny_proxy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "proxy"
    folder.mkdir()
    shutil.copy(tiny_proxy / MANIFEST, folder)
    code = "import sys, proxyds; proxyds.open(sys.argv[1]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(folder)], check=False).returncode == 0


@pytest.mark.e2e
def test_from_the_hub_it_is_fetched_once(
    tiny_proxy: Path, run_on_hub: Run, hub_environment: dict[str, str], hub: Hub, repo: str, tmp_path: Path
) -> None:
    assert run_on_hub("push", tiny_proxy, repo).returncode == 0
    code = "import sys, proxyds; proxy = proxyds.open(sys.argv[1]); print(len(proxy.train)); print(proxy.folder)"
    environment = {**os.environ, **hub_environment, "HF_HOME": str(tmp_path / "hf")}
    found = []
    for place in (f"{repo}@v1.0.0", f"hf://datasets/{repo}"):
        hub.forget_requests()
        done = subprocess.run(
            [sys.executable, "-c", code, place], env=environment, capture_output=True, text=True, check=True
        )
        found.append(done.stdout.split())
        n_parquet = sum(path.endswith(".parquet") for path in hub.requests("GET"))
        assert bool(n_parquet) == (len(found) == 1)
    assert found[0] == found[1]
    assert int(found[0][0]) == proxyds.open(tiny_proxy).manifest.counts.proxy
